{{- define "session-invite.name" -}}
{{- .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- end -}}

{{- define "session-invite.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}

{{/* Of a process: (dict "root" $ "process" "worker") */}}
{{- define "session-invite.selector" -}}
app.kubernetes.io/name: session-invite
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .process }}
{{- end -}}

{{- define "session-invite.labels" -}}
{{ include "session-invite.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- define "session-invite.prefix" -}}
{{ .Values.settings.all.QUEUE_PREFIX | default "session-invite" }}
{{- end -}}

{{- define "session-invite.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "session-invite.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* The settings of a process: the secrets' files, then the others. */}}
{{- define "session-invite.env" -}}
{{- $root := .root -}}
- name: DATABASE_URL_FILE
  value: /run/secrets/session-invite/database-url
- name: AMQP_URL_FILE
  value: /run/secrets/session-invite/amqp-url
{{- if ne .process "migrate" }}
- name: SECRETS_KEY_FILE
  value: /run/secrets/session-invite/secrets-key
{{- end }}
{{- range $name, $key := get $root.Values.secretKeys .process | default dict }}
- name: {{ $name }}_FILE
  value: /run/secrets/session-invite/{{ $key }}
{{- end }}
{{- if $root.Values.caConfigMap }}
- name: SSL_CERT_FILE
  value: /run/ca/ca.pem
{{- end }}
- name: HTTP_ADDR
  value: 0.0.0.0:9464
- name: LOG_FORMAT
  value: json
{{- if eq .process "gateway" }}
- name: GATEWAY_ADDR
  value: 0.0.0.0:8080
{{- end }}
{{- if ne .process "migrate" }}
- name: SHUTDOWN_GRACE
  value: {{ $root.Values.shutdownGrace }}s
{{- end }}
{{- range $name, $value := merge (dict) (get $root.Values.settings .process | default dict) $root.Values.settings.all }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end -}}

{{- define "session-invite.mounts" -}}
- name: secrets
  mountPath: /run/secrets/session-invite
  readOnly: true
{{- if .root.Values.caConfigMap }}
- name: ca
  mountPath: /run/ca
  readOnly: true
{{- end }}
{{- end -}}

{{- define "session-invite.volumes" -}}
- name: secrets
  secret:
    secretName: {{ get .root.Values.secrets .process }}
    defaultMode: 0440
{{- if .root.Values.caConfigMap }}
- name: ca
  configMap:
    name: {{ .root.Values.caConfigMap }}
{{- end }}
{{- end -}}
