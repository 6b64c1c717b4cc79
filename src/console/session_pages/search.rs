//! What the fields of the search mean.

use crate::{
    console::params::FormValues,
    group_id::GroupId,
    moment::Moment,
    phone::{self, NumberSearch},
    sessions::{Status, lookup::Filter, trace::Wanted},
    story,
};
use time::OffsetDateTime;
use uuid::Uuid;

/// Sessions of a page.
pub(super) const ROWS: usize = 50;
/// The region that a number without a country code is read in.
const REGION: &str = "US";
/// The names of the fields, but for the place in the list.
pub(super) const FIELDS: [&str; 6] = ["id", "group", "status", "code", "since", "until"];

/// What an operator looks for.
pub(super) struct Search {
    /// An id of any kind, for the indexes. `None` on all pages but the first.
    pub(super) wanted: Option<Wanted>,
    /// The same id, unless it is a number: if no index has it, it is looked for among the filter's sessions.
    pub(super) id: Option<String>,
    pub(super) filter: Filter,
}

impl Search {
    /// # Errors
    ///
    /// What is wrong with a field, in words.
    pub(super) fn read(query: &FormValues, now: OffsetDateTime) -> Result<Self, String> {
        let time = |name: &str| {
            let moment = query.get(name).map(str::parse::<Moment>).transpose();
            moment.map(|moment| moment.map(|moment| moment.at(now))).map_err(|why| format!("{name}: {why}"))
        };
        let (since, until) = (time("since")?, time("until")?);
        let group = query.get("group").map(|text| {
            text.parse()
                .ok()
                .and_then(GroupId::new)
                .ok_or_else(|| "group: a group is a number from 1".to_owned())
        });
        let group = group.transpose()?;
        let status = query.get("status").map(str::parse::<Status>).transpose();
        let id = query.get("id").map(story::id).transpose().map_err(|why| format!("id: {why}"))?;
        let number = id.as_ref().and_then(|id| phone::parse_either_form(id, REGION).ok());
        let before = query.get("before").and_then(|id| Uuid::try_parse(id).ok());
        let wanted = id.clone().filter(|_| before.is_none()).map(|id| Wanted {
            // The list has the sessions of the number.
            phones: Vec::new(),
            ..story::wanted(id, REGION, group, now, i64::try_from(ROWS).unwrap_or(i64::MAX))
        });
        let filter = Filter {
            group,
            status: status.map_err(|_| "status: there is no such status".to_owned())?,
            message_id: None,
            phones: number.map(|number| NumberSearch::new(&number).forms()),
            code: query.text("code"),
            since,
            until,
            before,
        };
        let id = id.filter(|_| filter.phones.is_none());
        // An operator with an id means one session, whatever else the form still has from the search before.
        let filter =
            if id.is_some() { Filter { status: None, code: None, until: None, ..filter } } else { filter };
        Ok(Self { wanted, id, filter })
    }
}
