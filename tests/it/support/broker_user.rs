//! A user of the broker, with permissions of its own.

use super::{World, broker_command, broker_server};

/// All permissions: to configure, to write and to read.
pub const ALL_PERMISSIONS: [&str; 3] = [".*", ".*", ".*"];

/// A user of the broker. It is deleted when this is dropped.
pub struct BrokerUser(String);

/// Runs `rabbitmqctl`, which has to succeed.
fn rabbitmqctl(args: &[&str]) {
    let ran = broker_command().args(args).output().expect("rabbitmqctl runs");
    assert!(ran.status.success(), "rabbitmqctl {args:?}: {}", String::from_utf8_lossy(&ran.stderr));
}

/// A pattern that matches all names but one.
pub fn all_but(name: &str) -> String {
    format!("^(?!{}$).*", name.replace('.', r"\."))
}

impl BrokerUser {
    /// Adds the world's user with these permissions to configure, write and read.
    pub fn with(world: &World, permissions: [&str; 3]) -> Self {
        let user = Self(world.broker.prefix.clone());
        rabbitmqctl(&["add_user", &user.0, "secret"]);
        user.grant(permissions);
        user
    }

    /// What a remedy says: `rabbitmqctl set_permissions`.
    pub fn grant(&self, [configure, write, read]: [&str; 3]) {
        rabbitmqctl(&["set_permissions", "-p", "/", &self.0, configure, write, read]);
    }

    /// The broker's URL, with this user.
    pub fn url(&self) -> String {
        let mut url = url::Url::parse(&broker_server()).expect("a server has a URL");
        url.set_username(&self.0).expect("a user");
        url.set_password(Some("secret")).expect("a password");
        url.into()
    }

    /// Closes all connections of the user.
    pub fn close_connections(&self) {
        rabbitmqctl(&["close_all_user_connections", &self.0, "a test"]);
    }

    /// Tells the user's connections, and no other, that an alarm is on or off, as the broker does when its memory or disk runs
    /// short: it then reads nothing more from those that publish.
    pub fn set_alarm(&self, resource: &str, is_on: bool) {
        let user = &self.0;
        rabbitmqctl(&[
            "eval",
            &format!(
                "[Pid ! {{conserve_resources, {resource}, {is_on}}} || Pid <- rabbit_networking:local_connections(), \
                 catch rabbit_networking:connection_info(Pid, [user]) =:= [{{user, <<\"{user}\">>}}]]."
            ),
        ]);
    }
}

impl Drop for BrokerUser {
    fn drop(&mut self) {
        let _ = broker_command().args(["delete_user", &self.0]).output();
    }
}
