//! The addresses that stand for a group's users in login keys. They are kept in lower case.

use super::{error::StoreError, groups::show};
use crate::group_id::GroupId;
use crate::masked::debug_shows;
use sqlx::{PgExecutor, PgPool};

#[derive(Clone)]
pub struct Address {
    /// In lower case.
    pub address: String,
    pub group_id: i64,
    pub partner_user_id: String,
}

debug_shows!(Address { group_id });

/// Adds an address (in lower case) for a group's user.
pub async fn add(pool: &PgPool, address: &str, group: GroupId, user: &str) -> Result<(), StoreError> {
    show(pool, group).await?;
    let added = sqlx::query!(
        "insert into addresses (address, group_id, partner_user_id) values ($1, $2, $3) on conflict do nothing",
        address,
        group.get(),
        user
    )
    .execute(pool)
    .await?;
    if added.rows_affected() == 0 { Err(StoreError::AddressExists(address.to_owned())) } else { Ok(()) }
}

/// Every address, of one group or of all, in order.
pub async fn list(db: impl PgExecutor<'_>, group: Option<GroupId>) -> Result<Vec<Address>, sqlx::Error> {
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
pub async fn remove(pool: &PgPool, address: &str) -> Result<(), StoreError> {
    let removed = sqlx::query!("delete from addresses where address = $1", address).execute(pool).await?;
    if removed.rows_affected() == 0 { Err(StoreError::NoAddress(address.to_owned())) } else { Ok(()) }
}
