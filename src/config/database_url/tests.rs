use super::*;

fn read(text: &str) -> Result<(DatabaseAddress, Vec<&'static str>), String> {
    parse(text, |_| None).map_err(|fault| fault.to_string())
}

fn address(text: &str) -> DatabaseAddress {
    read(text).unwrap_or_else(|fault| panic!("{text}: {fault}")).0
}

fn hosts(address: &DatabaseAddress) -> Vec<(&str, u16)> {
    address.nodes.iter().map(|node| (node.get_host(), node.get_port())).collect()
}

/// What sqlx would send: it has no getter for the password.
fn password(options: &PgConnectOptions) -> bool {
    format!("{options:?}").contains(r#"password: Some("pw")"#)
}

#[test]
fn hosts_ports_and_the_login_are_as_libpq_reads_them() {
    let cases: [(&str, &[(&str, u16)]); 9] = [
        ("postgres://u:pw@h/d", &[("h", 5432)]),
        ("postgresql://u:pw@h:5433/d", &[("h", 5433)]),
        ("POSTGRES://u:pw@[::1]:5433/d", &[("::1", 5433)]),
        ("postgres://u:pw@h1:1,h2:2,[fd00::3]/d", &[("h1", 1), ("h2", 2), ("fd00::3", 5432)]),
        ("postgres://u:pw@%2Frun%2Fpg/d", &[("/run/pg", 5432)]),
        ("postgres:///d?host=/run/pg&user=u&password=pw&port=5433", &[("/run/pg", 5433)]),
        ("postgres://u:pw@/d?host=h1,h2&port=1,2", &[("h1", 1), ("h2", 2)]),
        ("postgres://h/d?hostaddr=127.0.0.2&user=u&password=pw", &[("127.0.0.2", 5432)]),
        ("postgres://u@h1,h2:7/?dbname=d&password=pw", &[("h1", 5432), ("h2", 7)]),
    ];
    for (text, expected) in cases {
        let address = address(text);
        assert_eq!(hosts(&address), expected, "{text}");
        for node in &address.nodes {
            assert_eq!((node.get_username(), node.get_database()), ("u", Some("d")), "{text}");
            assert!(password(node), "{text}");
        }
    }
}

#[test]
fn of_several_hosts_the_one_that_takes_writes_is_wanted() {
    let cases = [
        ("postgres://h/d", TargetNode::Any),
        ("postgres://h1,h2/d", TargetNode::Writes),
        ("postgres://h1,h2/d?target_session_attrs=any", TargetNode::Any),
        ("postgres://h/d?target_session_attrs=read-write", TargetNode::Writes),
    ];
    for (text, expected) in cases {
        assert_eq!(address(text).target, expected, "{text}");
    }
}

#[test]
fn the_parameters_that_apply_are_obeyed() {
    let url = "postgres://h/d?sslmode=require&application_name=a%20b&connect_timeout=3\
               &options=-c%20geqo%3Doff%20--search-path=a\\%20b%20-cjit=on&options[x.y]=z";
    let address = address(url);
    let node = &address.nodes[0];
    assert!(matches!(node.get_ssl_mode(), PgSslMode::Require));
    assert_eq!(node.get_application_name(), Some("a b"));
    let settings = [("geqo", "off"), ("search_path", "a b"), ("jit", "on"), ("x.y", "z")];
    assert_eq!(address.settings, settings.map(|(name, value)| (name.to_owned(), value.to_owned())));
    assert_eq!(address.connect_timeout, Duration::from_secs(3));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let verified = self::address(&format!("postgres://h/d?sslmode=require&sslrootcert={file}"));
    assert!(matches!(verified.nodes[0].get_ssl_mode(), PgSslMode::VerifyCa));
    assert!(matches!(self::address("postgres://h/d?ssl=true").nodes[0].get_ssl_mode(), PgSslMode::Require));
}

#[test]
fn the_rest_of_libpqs_is_named_and_what_nobody_knows_an_error() {
    let url =
        "postgres://h/d?sslpassword=SECRET&keepalives=1&sslpassword=SECRET&target_session_attrs=standby";
    assert_eq!(read(url).unwrap().1, ["sslpassword", "keepalives", "target_session_attrs"]);
    for name in IGNORED {
        assert_eq!(read(&format!("postgres://h/d?{name}=SECRET")).unwrap().1, [name]);
    }
    for name in ["sslpasword", "foo", "SSLMODE", "pool_timeout"] {
        let fault = read(&format!("postgres://h/d?{name}=SECRET")).unwrap_err();
        assert!(fault.contains(name) && !fault.contains("SECRET"), "{fault}");
    }
}

#[test]
fn a_wrong_value_is_an_error_that_does_not_show_it() {
    let wrong = [
        "sslmode=SECRET",
        "sslrootcert=/SECRET",
        "sslcert=/SECRET",
        "sslkey=/SECRET",
        "sslcert=/SECRET&sslkey=/SECRET",
        "connect_timeout=SECRET",
        "options=SECRET",
        "options=-c%20SECRET",
        "options=-c",
        "port=SECRET",
        "port=1,2",
        "statement-cache-capacity=SECRET",
    ];
    for parameter in wrong {
        let fault = read(&format!("postgres://h/d?{parameter}")).unwrap_err();
        assert!(!fault.contains("SECRET"), "{fault}");
    }
}

#[test]
fn libpqs_variables_say_what_the_url_leaves_out() {
    let environment = |name: &str| {
        let values = [
            ("PGHOST", "elsewhere"),
            ("PGPORT", "7"),
            ("PGUSER", "u"),
            ("PGPASSWORD", "pw"),
            ("PGDATABASE", "d"),
            ("PGSSLMODE", "disable"),
            ("PGAPPNAME", "a"),
        ];
        values.into_iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
    };
    let (address, _) = parse("postgres://", environment).unwrap();
    let node = &address.nodes[0];
    assert_eq!((node.get_host(), node.get_port()), ("elsewhere", 7));
    assert_eq!((node.get_username(), node.get_database()), ("u", Some("d")));
    assert!(password(node) && matches!(node.get_ssl_mode(), PgSslMode::Disable));
    let (address, _) = parse("postgres://x:other@h:8/e?sslmode=require", environment).unwrap();
    let node = &address.nodes[0];
    assert_eq!((node.get_host(), node.get_port()), ("h", 8));
    assert_eq!((node.get_username(), node.get_database()), ("x", Some("e")));
    assert!(!password(node) && matches!(node.get_ssl_mode(), PgSslMode::Require));
}

#[test]
fn a_wrong_variable_of_libpqs_is_named_itself_and_its_value_is_not_shown() {
    let cases = [
        ("postgres://h/d", "PGPORT", "5ECRET"),
        ("postgres://h/d", "PGPORT", "0"),
        ("postgres://h1,h2:7/d", "PGPORT", "1,2,3"),
        ("postgres://h/d", "PGSSLMODE", "5ECRET"),
        ("postgres://h/d", "PGCONNECT_TIMEOUT", "5ECRET"),
        ("postgres://h/d", "PGOPTIONS", "5ECRET"),
        ("postgres://h/d?sslmode=require", "PGSSLROOTCERT", "/5ECRET"),
        ("postgres://h/d", "PGSSLCERT", "/5ECRET"),
        ("postgres://h/d", "PGSSLKEY", "/5ECRET"),
        ("postgres://h", "PGDATABASE", "postgres://u:5ECRET@h/d"),
        ("postgres://", "PGHOST", "postgres://u:5ECRET@h/d"),
    ];
    for (url, variable, value) in cases {
        let environment = |name: &str| (name == variable).then(|| value.into());
        let fault = parse(url, environment).unwrap_err().to_string();
        assert!(fault.starts_with(&format!("{variable}: ")) && !fault.contains("5ECRET"), "{fault}");
    }
    let fault = read("postgres://h/d?sslmode=x").unwrap_err();
    assert!(fault.starts_with("DATABASE_URL: ") && fault.contains("sslmode"), "{fault}");
}

#[test]
fn libpqs_variables_for_tls_and_settings_are_obeyed_where_the_url_does_not_say() {
    const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let environment = |name: &str| {
        let values = [
            ("PGSSLMODE", "require"),
            ("PGSSLROOTCERT", FILE),
            ("PGSSLCERT", FILE),
            ("PGSSLKEY", FILE),
            ("PGOPTIONS", "-c geqo=off"),
        ];
        values.into_iter().find(|(variable, _)| *variable == name).map(|(_, value)| value.into())
    };
    let read = |url: &str| parse(url, environment).unwrap_or_else(|fault| panic!("{url}: {fault}")).0;
    let files = |address: &DatabaseAddress| format!("{:?}", address.nodes[0]).matches(FILE).count();
    let address = read("postgres://h/d");
    assert!(matches!(address.nodes[0].get_ssl_mode(), PgSslMode::VerifyCa), "as with the URL's own");
    assert_eq!((files(&address), address.settings_from), (3, "PGOPTIONS"));
    assert_eq!(address.settings, [("geqo".to_owned(), "off".to_owned())]);

    let address = read("postgres://h/d?sslmode=verify-ca&sslrootcert=system&options=-c%20jit=on");
    assert_eq!((files(&address), address.settings_from), (2, "DATABASE_URL"));
    assert_eq!(files(&read("postgres://h/d?sslmode=prefer")), 2, "nothing is verified");
    assert_eq!(files(&read("postgres://h/d?sslmode=disable")), 0, "there is no TLS");
    assert_eq!(address.settings, [("jit".to_owned(), "on".to_owned())]);
    assert_eq!(read("postgres://h/d?options[jit]=on").settings.len(), 1);
}

#[test]
fn an_empty_variable_of_libpqs_says_nothing_and_one_that_is_no_text_is_named() {
    use std::os::unix::ffi::OsStringExt as _;
    let (address, _) = parse("postgres://u@h/d", |name| (name != "HOME").then(OsString::new)).unwrap();
    let node = &address.nodes[0];
    assert_eq!((node.get_host(), node.get_port(), node.get_username()), ("h", 5432, "u"));
    assert_eq!((node.get_application_name(), address.settings.len()), (None, 0));
    let fault = parse("postgres://u@h/d", |name| {
        (name == "PGPASSWORD").then(|| OsString::from_vec(b"5ECRET\xff".to_vec()))
    });
    let fault = fault.unwrap_err().to_string();
    assert_eq!(fault, "PGPASSWORD: is not UTF-8 text");
}

#[test]
fn where_every_port_stands_in_the_url_the_variables_is_not_looked_at() {
    for (url, expected) in [
        ("postgres://h:1/d", &[("h", 1)][..]),
        ("postgres://h1:1,h2:2/d", &[("h1", 1), ("h2", 2)]),
        ("postgres://h/d?port=1", &[("h", 1)]),
        ("postgres://h1,h2/d?port=1,2", &[("h1", 1), ("h2", 2)]),
    ] {
        for port in ["5ECRET", "1,2,3", "7"] {
            let environment = |name: &str| (name == "PGPORT").then(|| port.into());
            assert_eq!(hosts(&parse(url, environment).unwrap().0), expected, "{url} {port}");
        }
    }
}

#[test]
fn debug_shows_no_login() {
    let shown = format!("{:?}", address("postgres://USER:SECRET@h:1,[::1]:2/d?options=-c%20a=SECRET"));
    assert!(shown.contains("h:1") && !shown.contains("SECRET") && !shown.contains("USER"), "{shown}");
}
