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

/// Whether sqlx would send the password `pw`. It has no getter for it.
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
fn with_several_hosts_the_one_that_takes_writes_is_used() {
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
fn an_empty_host_in_a_list_is_an_error_that_names_the_one_beside_it() {
    for text in [
        "postgres://u:SECRET@h1,,h2/d",
        "postgres://u:SECRET@,h1/d",
        "postgres://u:SECRET@h1:5433,/d",
        "postgres://u:SECRET@h1,:5433/d",
        "postgres://u:SECRET@/d?host=h1,,h2",
        "postgres://u:SECRET@/d?hostaddr=h1,",
    ] {
        let fault = read(text).expect_err(text);
        assert!(fault.starts_with("DATABASE_URL: has an empty host"), "{text}: {fault}");
        assert!(fault.contains("beside h1") && !fault.contains("SECRET"), "{text}: {fault}");
    }
    let fault = parse("postgres://u@/d", |name| (name == "PGHOST").then(|| "h1,,h2".into()));
    assert!(fault.unwrap_err().to_string().starts_with("PGHOST: has an empty host"));
}

#[test]
fn a_host_that_is_named_twice_is_an_error() {
    for (text, host) in [
        ("postgres://u:SECRET@h,H:5432/d", "H:5432"),
        ("postgres://u:SECRET@h1,h2,h1/d?port=5433", "h1:5433"),
        ("postgres://u:SECRET@[::1],[0:0::1]/d", "[0:0::1]:5432"),
        ("postgres://u:SECRET@/d?host=/run/a,/run/a", "/run/a:5432"),
    ] {
        let fault = read(text).expect_err(text);
        assert_eq!(fault, format!("DATABASE_URL: names the host {host} twice"), "{text}");
    }
    assert_eq!(hosts(&address("postgres:///d?host=/a,/A,h&port=1")).len(), 3);
    assert_eq!(hosts(&address("postgres://h:1,h:2,127.0.0.1:1/d")).len(), 3);
}

#[test]
fn one_of_several_nodes_gets_less_time_unless_the_url_sets_it() {
    for (text, seconds) in [
        ("postgres://h/d", 5),
        ("postgres://h1,h2/d", 3),
        ("postgres://h1,h2/d?connect_timeout=0", 3),
        ("postgres://h1,h2/d?connect_timeout=7", 7),
    ] {
        assert_eq!(address(text).connect_timeout.as_secs(), seconds, "{text}");
    }
}

#[test]
fn the_supported_parameters_are_used() {
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
fn other_parameters_of_libpq_are_named_and_unknown_ones_are_an_error() {
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
fn libpqs_variables_give_what_the_url_leaves_out() {
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
fn a_wrong_libpq_variable_is_named_and_its_value_is_not_shown() {
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
fn libpqs_variables_for_tls_and_settings_count_when_the_url_leaves_them_out() {
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
fn an_empty_libpq_variable_is_ignored_and_one_that_is_not_text_is_named() {
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
fn pgport_is_ignored_when_the_url_has_every_port() {
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
