//! What the pure parts decide.

use serde_json::json;

use super::*;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn names_are_made_of_the_cidr() {
    for (cidr, name) in [
        ("10.65.0.0/16", "10-65-0-0-16"),
        ("fd80:24e2:f998:72d6::/64", "fd80-24e2-f998-72d6---64"),
        ("::/3", "pool---3"),
    ] {
        assert_eq!(name_of(&net(cidr)), name);
        assert!(is_resource_name(name));
    }
}

#[test]
fn what_calico_refuses_is_refused() {
    let wish = PoolWish::default();
    for (cidr, wish, words) in [
        ("10.65.0.5/16", wish.clone(), "its network is 10.65.0.0/16"),
        ("169.254.7.0/24", wish.clone(), "169.254.0.0/16, the link-local addresses"),
        ("fe80::/64", wish.clone(), "fe80::/10, the link-local addresses"),
        ("127.1.0.0/16", wish.clone(), "127.0.0.0/8, the loopback addresses"),
        ("224.0.0.0/8", wish.clone(), "224.0.0.0/4, the multicast addresses"),
        ("10.65.0.0/28", wish.clone(), "smaller blocks with --block-size 28"),
        ("fd00::/124", wish.clone(), "smaller than a block of /122"),
        ("10.65.0.0/16", PoolWish { block_length: Some(19), ..wish.clone() }, "20 to 32 bits"),
        ("fd00::/64", PoolWish { block_length: Some(64), ..wish.clone() }, "116 to 128 bits"),
        ("fd00::/64", PoolWish { ipip: Some(Encapsulation::Always), ..wish.clone() }, "no IPIP"),
        ("10.0.0.0/8", PoolWish { node_selector: Some("rack ==".into()), ..wish.clone() }, "--node-selector"),
    ] {
        let error = wish.check(&net(cidr), cidr, None).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    assert!(wish.check(&net("10.65.0.0/26"), "10.65.0.0/26", None).is_ok());
    let other = PoolWish { block_length: Some(28), ..wish };
    assert!(other.check(&net("10.65.0.0/16"), "x", Some(26)).unwrap_err().contains("cannot change"));
    assert!(other.check(&net("10.65.0.0/16"), "x", Some(28)).is_ok());
}

#[test]
fn a_change_touches_what_it_names() {
    let wish = PoolWish { nat_outgoing: Some(true), ..PoolWish::default() };
    let mut spec = json!({"cidr": "10.0.0.0/8", "ipipMode": "Always", "ours": 1, "blockSize": 28});
    let before = spec.clone();
    wish.apply(spec.as_object_mut().unwrap()).unwrap();
    let mut expected = before;
    expected["natOutgoing"] = true.into();
    assert_eq!(spec, expected);
    let both = PoolWish { vxlan: Some(Encapsulation::CrossSubnet), ..PoolWish::default() };
    assert!(both.apply(spec.as_object_mut().unwrap()).unwrap_err().contains("--ipip=never"));
    let instead = PoolWish { ipip: Some(Encapsulation::Never), ..both };
    instead.apply(spec.as_object_mut().unwrap()).unwrap();
    assert_eq!((&spec["ipipMode"], &spec["vxlanMode"]), (&json!("Never"), &json!("CrossSubnet")));
}

#[test]
fn records_are_read_with_calicos_defaults() {
    let read = |spec: Value| PoolRecord::of(&Object::new(Kind::IpPool, "a", spec));
    let pool = read(json!({"cidr": "10.0.0.0/16"})).unwrap();
    assert_eq!((pool.block_length, pool.enabled, &*pool.node_selector), (26, true, "all()"));
    assert_eq!(pool.options(), "");
    let full =
        json!({"cidr": "10.0.0.0/16", "ipipMode": "CrossSubnet", "natOutgoing": true, "disabled": true});
    assert_eq!(read(full).unwrap().options(), "ipip=cross-subnet,nat-outgoing,disabled");
    for (spec, words) in [
        (json!({}), "not a network"),
        (json!({"cidr": "10.0.0.0/16", "blockSize": 8}), "does not fit"),
        (json!({"cidr": "10.0.0.0/16", "ipipMode": "always"}), "ipipMode: 'always'"),
        (json!({"cidr": 7}), "spec: "),
    ] {
        assert!(read(spec).unwrap_err().reason.contains(words), "{words}");
    }
}
