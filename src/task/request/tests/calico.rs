//! Every good, bad and mixed case of the four variables.

use proptest::prelude::*;

use super::super::calico::*;
use crate::config::Config;
use crate::error::{Code, Failure};

fn read(variables: &[(&'static str, &'static str)]) -> Result<Option<CalicoRequest>, Failure> {
    let find = |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
    CalicoRequest::read(find, false)
}

fn asked(variables: &[(&'static str, &'static str)]) -> CalicoRequest {
    read(variables).unwrap().unwrap()
}

fn ip(text: &str) -> AddressRequest {
    AddressRequest::Explicit(text.parse().unwrap())
}

const AUTO: AddressRequest = AddressRequest::Auto(Family::V4);
const AUTO6: AddressRequest = AddressRequest::Auto(Family::V6);

#[test]
fn a_task_without_calico_variables_has_no_calico_request() {
    assert_eq!(read(&[]).unwrap(), None);
    assert_eq!(read(&[("SERVICE_PORT", "not ours")]).unwrap(), None);
    let by_network = CalicoRequest::read(|_| None, true).unwrap().unwrap();
    assert_eq!(by_network, CalicoRequest::default());
    assert_eq!((by_network.addresses, by_network.profiles.len()), (vec![AUTO], 0));
}

#[test]
fn one_calico_variable_makes_a_calico_task() {
    assert_eq!(asked(&[("CALICO_PROFILE", "dev")]).addresses, [AUTO]);
    assert!(asked(&[("CALICO_IP", "auto")]).profiles.is_empty());
}

#[test]
fn pools_by_name_and_by_cidr() {
    let alone = asked(&[("CALICO_POOL", " web , 10.65.0.0/16,fd00::/48, web")]);
    assert_eq!(alone.pools, ["web", "10.65.0.0/16", "fd00::/48"]);
    assert_eq!((alone.addresses, alone.profiles.len()), (vec![AUTO], 0));
    for (text, reason) in [
        ("", "empty"),
        ("web,", "empty item"),
        ("Web", "neither the name of a pool nor a CIDR"),
        ("a b", "neither the name of a pool nor a CIDR"),
        ("10.65.0.1/16", "the network of that length is 10.65.0.0/16"),
        ("10.65.0.0/33", "neither"),
        ("-web", "neither"),
    ] {
        let failure = read(&[("CALICO_POOL", text)]).unwrap_err();
        assert_eq!(failure.code, Code::PoolInvalid, "{text}");
        assert!(failure.message.contains(reason), "{text}: {}", failure.message);
    }
    let many: String = (0..65).map(|n| format!("p{n},")).collect();
    let failure =
        CalicoRequest::read(|name| (name == CALICO_POOL).then_some(many.trim_end_matches(',')), false);
    assert!(failure.unwrap_err().message.contains("more than 64 pools"));
}

#[test]
fn addresses_that_are_understood() {
    for (text, expected) in [
        ("auto", vec![AUTO]),
        (" auto ", vec![AUTO]),
        ("auto6", vec![AUTO6]),
        ("auto,auto6", vec![AUTO, AUTO6]),
        ("auto6 , auto", vec![AUTO6, AUTO]),
        ("192.168.1.5", vec![ip("192.168.1.5")]),
        ("192.168.1.5,auto6", vec![ip("192.168.1.5"), AUTO6]),
        ("auto,fd00::5", vec![AUTO, ip("fd00::5")]),
        ("192.168.1.5,fd00::5", vec![ip("192.168.1.5"), ip("fd00::5")]),
    ] {
        assert_eq!(asked(&[("CALICO_IP", text)]).addresses, expected, "{text}");
    }
}

#[test]
fn addresses_that_are_refused() {
    for (text, reason) in [
        ("", "empty"),
        ("  ", "empty"),
        ("auto,", "empty item"),
        (",auto", "empty item"),
        ("auto,auto", "two IPv4"),
        ("auto,192.168.1.5", "two IPv4"),
        ("192.168.1.5,192.168.1.6", "two IPv4"),
        ("fd00::1,auto6", "two IPv6"),
        ("auto,auto6,auto6", "two IPv6"),
        ("AUTO", "not an address"),
        ("auto4", "not an address"),
        ("dhcp", "not an address"),
        ("192.168.1", "not an address"),
        ("192.168.1.256", "not an address"),
        ("192.168.01.5", "not an address"),
        ("192.168.1.5 fd00::1", "not an address"),
        ("fe80::1%eth0", "not an address"),
        ("192.168.1.5/32", "prefix length"),
        ("0.0.0.0", "cannot be the address of a container"),
        ("127.0.0.1", "cannot be the address of a container"),
        ("169.254.1.1", "cannot be the address of a container"),
        ("224.0.0.1", "cannot be the address of a container"),
        ("255.255.255.255", "cannot be the address of a container"),
        ("::", "cannot be the address of a container"),
        ("::1", "cannot be the address of a container"),
        ("fe80::1", "cannot be the address of a container"),
        ("ff02::1", "cannot be the address of a container"),
        ("::ffff:192.168.1.5", "cannot be the address of a container"),
    ] {
        let failure = read(&[("CALICO_IP", text)]).unwrap_err();
        assert_eq!(failure.code, Code::IpInvalid);
        assert!(failure.message.contains(reason), "'{text}' gives: {failure}");
    }
}

#[test]
fn profile_names_are_accepted_or_refused_as_calico_does() {
    assert_eq!(asked(&[("CALICO_PROFILE", " dev , web.prod-1,dev")]).profiles, ["dev", "web.prod-1"]);
    for text in ["", "dev,", "Dev", "de_v", "-dev", "dev-", "a..b", "a b", "../etc", "dev\n", "ü"] {
        let text: &'static str = text;
        // A trailing line break is a blank around the value.
        if text == "dev\n" {
            assert_eq!(asked(&[("CALICO_PROFILE", text)]).profiles, ["dev"]);
            continue;
        }
        assert_eq!(read(&[("CALICO_PROFILE", text)]).unwrap_err().code, Code::ProfileInvalid, "{text}");
    }
    let long: &'static str = "a".repeat(254).leak();
    let failure = read(&[("CALICO_PROFILE", long)]).unwrap_err();
    assert!(failure.message.len() < 500, "{failure}");
}

#[test]
fn port_lists_are_accepted_or_refused() {
    let port = |port, name: Option<&str>| ServicePort { port, name: name.map(str::to_owned) };
    let asked_ports = |text| asked(&[("CALICO_IP", "auto"), ("SERVICE_PORT", text)]).ports;
    assert_eq!(asked_ports("3000"), [port(3000, None)]);
    assert_eq!(asked_ports("80, https:443 "), [port(80, None), port(443, Some("https"))]);
    for text in [
        "", "80,", "0", "65536", "-1", "+80", "080", "80/udp", "http", "80:http", "http:", ":80", "a b:80",
        "80,80", "x:1,x:2", "1e3", "８０",
    ] {
        let failure = read(&[("CALICO_PROFILE", "dev"), ("SERVICE_PORT", text)]).unwrap_err();
        assert_eq!(failure.code, Code::PortInvalid, "{text}");
    }
    let many: &'static str = (1..=65).map(|port| port.to_string()).collect::<Vec<_>>().join(",").leak();
    assert!(read(&[("CALICO_IP", "auto"), ("SERVICE_PORT", many)]).is_err());
}

#[test]
fn requests_beyond_the_operators_limits_are_refused() {
    let mut config = Config::default();
    assert_eq!(CalicoRequest::default().within(&config).unwrap().profiles, ["dev"]);
    config.limits.explicit_addresses = false;
    for explicit in ["192.168.1.5,auto6", "fd00::5", "auto,fd00::5", "fd00::5,192.168.1.5"] {
        let failure = asked(&[("CALICO_IP", explicit)]).within(&config).unwrap_err();
        assert_eq!(failure.code, Code::NotAllowed, "{explicit}");
    }
    assert!(asked(&[("CALICO_IP", "auto,auto6")]).within(&config).is_ok());
    for profile in ["kns.kube-system", "web,ksa.default.admin"] {
        let failure = asked(&[("CALICO_PROFILE", profile)]).within(&config).unwrap_err();
        assert!(failure.message.contains("of Kubernetes"), "{failure}");
    }
    config.limits.profiles = vec!["kns.shared".into()];
    assert!(asked(&[("CALICO_PROFILE", "kns.shared")]).within(&config).is_ok());
    config.limits.profiles = vec!["web".into()];
    assert!(asked(&[("CALICO_PROFILE", "web")]).within(&config).is_ok());
    assert!(asked(&[("CALICO_PROFILE", "dev")]).within(&config).is_ok(), "the default is the operator's own");
    let failure = asked(&[("CALICO_PROFILE", "web,prod")]).within(&config).unwrap_err();
    assert!(failure.message.contains("prod") && failure.message.contains("allowed are: web"), "{failure}");
    config.limits.profiles.push("db".into());
    assert_eq!(asked(&[("CALICO_PROFILE", "db,web")]).within(&config).unwrap().profiles, ["db", "web"]);
    let failure = asked(&[("CALICO_PROFILE", "web,dbx")]).within(&config).unwrap_err();
    assert!(failure.message.contains("dbx is not allowed"), "{failure}");
}

proptest! {
    #[test]
    fn any_text_in_a_variable_is_accepted_or_refused_without_a_panic(ip in ".*", profile in ".*", port in "[0-9a-z:, ]*") {
        let find = |name: &str| Some(match name {
            CALICO_IP => ip.as_str(),
            CALICO_PROFILE => profile.as_str(),
            _ => port.as_str(),
        });
        match CalicoRequest::read(find, false) {
            Ok(request) => {
                let request = request.unwrap();
                prop_assert!((1..=2).contains(&request.addresses.len()));
                prop_assert!(!request.profiles.is_empty() && !request.ports.is_empty());
            }
            Err(failure) => {
                prop_assert!(failure.code.name().ends_with("-INVALID"));
                prop_assert!(!failure.message.contains(char::is_control), "{}", failure.message);
            }
        }
    }
}
