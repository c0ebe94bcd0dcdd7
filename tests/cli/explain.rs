//! `calico-mesos explain`, which needs neither a configuration nor root.

use calico_mesos::error::Code;
use serde_json::Value;

use crate::machine::plain;

/// As the table of README.md has it, without its marks.
fn shown(markdown: &str) -> String {
    markdown.replace('`', "")
}

#[test]
fn a_code_is_explained_in_any_spelling() {
    for spelling in ["CM-IP-TAKEN", "cm-ip-taken", "ip-taken"] {
        let outcome = plain(&["explain", spelling]);
        assert_eq!((outcome.code, &*outcome.stderr), (0, ""), "{outcome:?}");
        let lines: Vec<&str> = outcome.stdout.lines().collect();
        assert_eq!(lines[0], "CM-IP-TAKEN");
        for (label, text) in [
            ("Meaning: ", &*shown(Code::IpTaken.meaning())),
            ("Fault: ", "the app definition; the task fails at once"),
            ("What to do: ", &shown(Code::IpTaken.advice())),
        ] {
            assert!(lines.iter().any(|line| line.starts_with(label) && line.ends_with(text)), "{outcome:?}");
        }
    }
    for arguments in [&["explain"][..], &["explain", "runtime"], &["explain", "docker"]] {
        let printed = plain(arguments).stdout;
        assert!(printed.contains("Docker") && !printed.contains('`'), "marks of Markdown: {printed}");
    }
    let outcome = plain(&["explain", "etcd"]);
    assert!(outcome.stdout.contains("the Calico cluster; a Calico task tries again"), "{outcome:?}");
}

#[test]
fn without_a_code_all_are_listed_one_a_line() {
    let outcome = plain(&["explain"]);
    assert_eq!((outcome.code, &*outcome.stderr), (0, ""), "{outcome:?}");
    let lines: Vec<&str> = outcome.stdout.lines().skip(1).collect();
    assert_eq!(lines.len(), Code::ALL.len());
    for (line, code) in lines.iter().zip(Code::ALL) {
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(words[..2], [code.name(), code.party().name()]);
        assert!(line.ends_with(&shown(code.meaning())), "{line}");
    }
}

#[test]
fn programs_get_json() {
    for arguments in [&["explain", "-o", "json", "busy"][..], &["explain", "busy", "--output", "json"]] {
        let outcome = plain(arguments);
        let busy: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!((&busy["code"], &busy["fault"]), (&"CM-BUSY".into(), &"app".into()), "{busy}");
        assert_eq!((&busy["retried"], &busy["advice"]), (&false.into(), &Code::Busy.advice().into()));
    }
    let all: Vec<Value> = serde_json::from_str(&plain(&["explain", "-o", "json"]).stdout).unwrap();
    let names: Vec<&str> = all.iter().map(|code| code["code"].as_str().unwrap()).collect();
    assert_eq!(names, Code::ALL.iter().map(|code| code.name()).collect::<Vec<_>>());
}

#[test]
fn an_unknown_code_is_refused_with_the_near_ones() {
    let outcome = plain(&["explain", "CM-IP-TAKN"]);
    assert_eq!((outcome.code, &*outcome.stdout), (64, ""), "{outcome:?}");
    let lines: Vec<&str> = outcome.stderr.lines().collect();
    assert!(lines.len() == 2 && lines[0].contains("CM-IP-TAKN"), "{outcome:?}");
    assert!(lines[0].contains("CM-IP-TAKEN") && lines[0].contains("lists all"), "{outcome:?}");
}
