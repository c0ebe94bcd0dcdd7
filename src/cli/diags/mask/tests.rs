//! Secrets in every form that texts of a host have them, and what has to stay readable.

use super::*;

fn masked(text: &str) -> String {
    Mask::new(["known-value".to_owned(), "pä\"ss".to_owned(), "abc".to_owned()]).text(text)
}

#[test]
fn secrets_are_left_out_whatever_holds_them() {
    for line in [
        "ETCD_PASSWORD=hunter2",
        "export ETCD_PASSWORD='hunter2 and more hunter2'",
        "password = hunter2 and hunter2",
        "  etcdPassword: \"hunter2\"",
        "level=info msg=\"x\" token=hunter2 more",
        "level=info msg=\"x\" token=\"hunter2 hunter2\" more",
        "--secret hunter2 --other",
        "--executor_environment_variables={\"A\":\"hunter2\"}",
        "Environment=A=hunter2 B=hunter2",
        "Authorization: Bearer hunter2",
        "x Authorization: Basic hunter2",
        "sent 'authorization: bearer hunter2' to it",
        "it sent Bearer hunter2",
        "http://root:hunter2@10.0.0.1:2379/x and https://hunter2@host",
        "http://root:hun/hunter2@10.0.0.1:2379/",
        "{\"a\":{\"password\":\"hunter2\"},\"env\":{\"A\":\"hunter2\"},\"Env\":[\"A=hunter2\"]}",
        "[{\"name\":\"DB_PASSWORD\",\"value\":\"hunter2\"}]",
        "{\"environment\":{\"variables\":[{\"name\":\"A\",\"value\":\"hunter2\"}]}}",
        "{\"auths\":{\"registry\":{\"auth\":\"hunter2\"}},\"secrets\":[\"hunter2\", 7]}",
        "{\"text\":\"it has password=hunter2 there\",\"n\":1}",
        "time=1 body=\"{\\\"password\\\":\\\"hunter2\\\",\\\"a\\\":1}\"",
        "apiKey: hunter2",
        "-----BEGIN RSA PRIVATE KEY-----\nhunter2\n-----END RSA PRIVATE KEY-----\nafter",
        "key \"-----BEGIN EC PRIVATE KEY-----\\nhunter2\\n-----END EC PRIVATE KEY-----\\n\" after",
        "{\"x\":\"-----BEGIN PRIVATE KEY-----\\nhunter2\\n-----END PRIVATE KEY-----\\n\"}",
        "HUNTER2hunter2hunter2hunter2\n-----END PRIVATE KEY-----\nafter",
        "a token eyJhbGciOi.hunter2eyJ.hunter2",
    ] {
        let text = masked(line);
        assert!(!text.contains("hunter2") && text.contains(MASK), "{line}\n{text}");
        assert_eq!(masked(&text), text, "twice");
    }
}

#[test]
fn known_values_are_found_in_all_spellings() {
    for text in ["x known-value y", "xknown-valuey", "a25vd24tdmFsdWU", "pä\\\"ss p%C3%A4%22ss"] {
        let text = masked(text);
        assert!(text.contains(MASK) && !text.contains("known-value") && !text.contains("%22"), "{text}");
    }
    assert_eq!(masked("abcd"), "abcd", "too short to be found in other words");
}

#[test]
fn what_helps_stays() {
    for line in [
        "password_file = \"/etc/calico-mesos/password\"",
        "--credential=/etc/hostname --authenticate_http_readonly=true --launcher_dir=/usr/libexec/mesos",
        "ETCD_KEY_FILE=/etc/calico/key.pem",
        "10.0.0.0/24 dev eth0 proto kernel scope link src 10.0.0.1",
        "-A cali-FORWARD -m comment --comment \"cali:6gwbT8clXdHdC1b1\" -j MARK --set-xmark 0x0/0x10000",
        "link/ether 02:42:ac:11:00:02 brd ff:ff:ff:ff:ff:ff",
        "datastore from ETCD_ENDPOINTS of the environment",
        "etcd at http://10.0.0.1:2379, https://10.0.0.2:2379",
    ] {
        assert_eq!(masked(line), line);
    }
    assert_eq!(masked("a\nb\n"), "a\nb\n");
    let json = "{\"a\":1,\"password_file\":\"/etc/x/password\",\"token\":null,\"ok\":true}";
    assert_eq!(masked(&format!("x\n{json}")), format!("x\n{json}"));
    let pair = "{\"key\":\"etcd.key_file\",\"value\":null,\"origin\":\"default\"}";
    assert_eq!(masked(&format!("x\n{pair}")), format!("x\n{pair}"));
    let env = masked("{\"Env\":[\"CALICO_IP=1.2.3.4\"]}");
    assert!(env.contains("CALICO_IP="), "{env}");
}
