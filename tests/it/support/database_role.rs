//! A role of the database, with the rights of a worker.

use super::World;

/// A role that may read and write the tables of the world's database, and not change their definition. The schema belongs to
/// the server's own role.
pub struct DatabaseRole {
    pub name: String,
    /// The database's URL, with this role.
    pub url: String,
}

impl DatabaseRole {
    pub async fn create(world: &World) -> Self {
        let name = format!("r_{}", uuid::Uuid::new_v4().simple());
        let create = format!(
            "create role {name} login password '{name}';
             grant usage on schema public to {name};
             grant select, insert, update, delete on all tables in schema public to {name};"
        );
        world.database.execute(&create).await;
        let mut url = url::Url::parse(&world.database.url).expect("a test's database has a usual URL");
        url.set_username(&name).expect("a test's database has a usual URL");
        // Some servers require a password from this machine, and some do not.
        url.set_password(Some(&name)).expect("a test's database has a usual URL");
        Self { url: url.into(), name }
    }

    /// The role has rights in the database, so it has to be dropped before the database is.
    pub async fn drop(self, world: &World) {
        world.database.execute(&format!("drop owned by {0}; drop role {0}", self.name)).await;
    }
}
