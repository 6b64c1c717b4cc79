//! The addresses that name a group's users in login keys. They are stored in lower case.

use super::{error::StoreError, groups::show};
use crate::{
    audit::{Change, Operator},
    group_id::GroupId,
    masked::debug_shows,
};
use serde_json::json;
use sqlx::PgExecutor;

#[derive(Clone)]
pub(crate) struct Address {
    /// In lower case.
    pub address: String,
    pub group_id: i64,
    pub partner_user_id: String,
}

debug_shows!(Address { group_id });

/// Adds an address (in lower case) for a group's user.
pub(crate) async fn add(
    operator: &Operator,
    address: &str,
    group: GroupId,
    user: &str,
) -> Result<(), StoreError> {
    operator
        .change(Some(group), async |tx| {
            show(&mut *tx, group).await?;
            let added = sqlx::query!(
                "insert into addresses (address, group_id, partner_user_id) values ($1, $2, $3) on conflict do nothing",
                address,
                group.get(),
                user
            )
            .execute(tx)
            .await?;
            if added.rows_affected() == 0 {
                return Err(StoreError::AddressExists(address.to_owned()));
            }
            Ok(Change { value: (), before: None, after: Some(json!({"address": address, "user": user})) })
        })
        .await
}

/// Every address, of one group or of all, in order.
pub(crate) async fn list(
    db: impl PgExecutor<'_>,
    group: Option<GroupId>,
) -> Result<Vec<Address>, sqlx::Error> {
    sqlx::query_as!(
        Address,
        "select address, group_id, partner_user_id from addresses
          where $1::bigint is null or group_id = $1 order by address",
        group.map(GroupId::get)
    )
    .fetch_all(db)
    .await
}

/// Removes an address (in lower case).
pub(crate) async fn remove(operator: &Operator, address: &str) -> Result<(), StoreError> {
    operator
        .change(None, async |tx| {
            let removed = sqlx::query!(
                "delete from addresses where address = $1 returning group_id, partner_user_id",
                address
            )
            .fetch_optional(tx)
            .await?
            .ok_or_else(|| StoreError::NoAddress(address.to_owned()))?;
            let before =
                json!({"address": address, "group_id": removed.group_id, "user": removed.partner_user_id});
            Ok(Change { value: (), before: Some(before), after: None })
        })
        .await
}
