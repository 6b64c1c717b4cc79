// What Grafana's own types (@grafana/schema) say of the dashboard and of each kind of panel. `./dev check alerts` writes
// `const dashboard: Dashboard = {…}` below this, and lets the TypeScript compiler compare.

import * as schema from '@grafana/schema';
import type * as stat from '@grafana/schema/dist/types/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen.d.ts';
import type * as timeseries from '@grafana/schema/dist/types/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen.d.ts';
import type * as table from '@grafana/schema/dist/types/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen.d.ts';
import type * as bargauge from '@grafana/schema/dist/types/raw/composable/bargauge/panelcfg/x/BarGaugePanelCfg_types.gen.d.ts';

/** Enums as the words and numbers that JSON has. */
type Json<T> = T extends string ? `${T}` : T extends number ? T : T extends object ? { [K in keyof T]: Json<T[K]> } : T;

/** The package has no type of Prometheus's queries; these are the members that its data source reads. */
type Query = schema.DataQuery & {
  expr: string;
  legendFormat: string;
  range: boolean;
  instant: boolean;
  format: 'time_series' | 'table';
  editorMode: 'code';
};

type PanelOf<Type extends string, Options, Custom> = Omit<schema.Panel, 'type' | 'options' | 'fieldConfig' | 'targets'> & {
  type: Type;
  title: string;
  description: string;
  options: Options;
  fieldConfig: { defaults: Omit<schema.FieldConfig, 'custom'> & { custom?: Custom }; overrides: [] };
  targets: Query[];
};

type Panel =
  | schema.RowPanel
  | PanelOf<'stat', stat.Options, never>
  | PanelOf<'timeseries', timeseries.Options, timeseries.FieldConfig>
  | PanelOf<'table', table.Options, schema.TableFieldOptions>
  | PanelOf<'bargauge', bargauge.Options, never>;

/** Of Prometheus's notes; its data source reads them (grafana-prometheus, `annotations.ts`). */
type Note = schema.AnnotationQuery & { expr: string; titleFormat: string; textFormat: string; tagKeys: string; step: string };

type Dashboard = Json<Omit<schema.Dashboard, 'panels' | 'annotations'> & { panels: Panel[]; annotations: { list: Note[] } }>;

