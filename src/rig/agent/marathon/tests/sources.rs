//! Files as people have them: encodings, answers of Marathon's API, lists and groups, ids.

use super::*;

const APP: &str = r#"{"id": "/a", "container": {"docker": {"image": "größe"}}}"#;

fn read(bytes: &[u8]) -> Result<App, AppError> {
    App::read(bytes, &AppChoice::default())
}

fn chosen(json: &str, id: &str) -> Result<App, AppError> {
    App::read(json.as_bytes(), &AppChoice { app: Some(id), executor: None })
}

#[test]
fn the_encodings_of_windows_are_read() {
    let little: Vec<u8> = APP.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let big: Vec<u8> = APP.encode_utf16().flat_map(u16::to_be_bytes).collect();
    for bytes in [
        APP.as_bytes().to_vec(),
        [b"\xEF\xBB\xBF", APP.as_bytes()].concat(),
        [&b"\xFF\xFE"[..], &little].concat(),
        [&b"\xFE\xFF"[..], &big].concat(),
        little.clone(),
        big,
    ] {
        assert_eq!(read(&bytes).unwrap().docker.unwrap().image, "größe", "{bytes:?}");
    }
    for (bytes, encoding) in [(&b"{\"id\": \"\xFF\"}"[..], "UTF-8"), (&little[..little.len() - 1], "UTF-16")]
    {
        let text = crate::error::chain(&read(bytes).unwrap_err());
        assert!(text.contains(&format!("not valid {encoding}")), "{text}");
    }
}

#[test]
fn an_answer_of_marathon_is_unwrapped() {
    assert_eq!(App::parse(&format!(r#"{{"app": {APP}}}"#)).unwrap().id, "/a");
    assert_eq!(chosen(&format!(r#"{{"app": {APP}}}"#), "a").unwrap().id, "/a");
}

#[test]
fn of_several_apps_the_chosen_one_is_read() {
    let list = format!(r#"[{APP}, {{"app": {{"id": "b/c", "container": {{"docker": {{"image": "x"}}}}}}}}]"#);
    let answer = format!(r#"{{"apps": {list}}}"#);
    let group = r#"{"id": "/shop", "apps": [{"id": "web", "container": {"docker": {"image": "x"}}}],
        "groups": [{"id": "back", "apps": [{"id": "db", "container": {"docker": {"image": "x"}}},
                                           {"id": "/abs", "container": {"docker": {"image": "x"}}}]}]}"#;
    for (json, ids) in [
        (list.as_str(), &["/a", "/b/c"][..]),
        (&answer, &["/a", "/b/c"]),
        (group, &["/shop/web", "/shop/back/db", "/abs"]),
    ] {
        let text = refusal(json);
        assert!(text.contains("--app ID") && text.contains(&ids.join(", ")), "{text}");
        for id in ids {
            assert_eq!(chosen(json, id).unwrap().id, *id);
            assert_eq!(chosen(json, &id[1..]).unwrap().id, *id);
        }
        let text = chosen(json, "/none").unwrap_err().to_string();
        assert!(text.contains("no app /none") && text.contains(ids[0]), "{text}");
    }
    assert!(chosen(APP, "/b").unwrap_err().to_string().contains("it has: /a"));
    let many: Vec<String> = (0..25).map(|number| format!(r#"{{"id": "a{number}"}}"#)).collect();
    assert!(refusal(&format!("[{}]", many.join(","))).contains("/a19, 5 more"));
}

#[test]
fn a_pod_is_called_a_pod() {
    let pod = r#"{"id": "/pod", "containers": [{"name": "c", "image": {"kind": "DOCKER", "id": "x"}}]}"#;
    assert!(refusal(pod).contains("this is a pod"));
    assert!(chosen(&format!("[{pod}]"), "pod").unwrap_err().to_string().contains("this is a pod"));
}

#[test]
fn ids_are_those_that_marathon_takes() {
    let id = |id: &str| App::parse(&APP.replace("/a", id)).map(|app| app.id);
    for (text, expected) in
        [("a", "/a"), ("/a/", "/a"), ("//a//b-1.c", "/a/b-1.c"), ("tasks/a", "/tasks/a"), ("0", "/0")]
    {
        assert_eq!(id(text).unwrap(), expected);
    }
    for bad in [
        "/",
        "a..b",
        "..",
        "/a/../b",
        "a/.",
        ".a",
        "a.",
        "-a",
        "a-",
        "a.-b",
        "a-.b",
        "A",
        "a_b",
        "a b",
        "restart",
        "/a/tasks",
        "a/versions/",
    ] {
        let text = id(bad).unwrap_err().to_string();
        assert!(text.contains("id ") && text.contains("is invalid") && text.contains(bad), "{bad}: {text}");
    }
}

#[test]
fn archives_are_unpacked_by_the_end_of_their_path() {
    let extracted = |uri: &str| {
        let read = task(&with(&format!(r#""fetch": [], "uris": ["{uri}"]"#)), &[31000]);
        read.command.unwrap().uris[0].extract()
    };
    for archive in [
        "http://h/a.tar",
        "http://h/a.gz",
        "http://h/a.tar.xz",
        "/a.zip",
        "http://h/a.tgz?sig=1",
        "file:///a.tbz2",
    ] {
        assert!(extracted(archive), "{archive}");
    }
    for plain in ["http://h/a.jar", "http://h/a?b=x.tgz", "http://h/a b.tgz", "http://h/tgz"] {
        assert!(!extracted(plain), "{plain}");
    }
    let read = task(&with(r#""fetch": [{"uri": "http://h/a", "destPath": "d/b"}], "uris": []"#), &[31000]);
    let uri = &read.command.as_ref().unwrap().uris[0];
    assert_eq!((uri.extract(), uri.executable(), uri.output_file()), (true, false, "d/b"));
}

#[test]
fn an_empty_command_leaves_the_image_its_own() {
    let command = task(&with(r#""cmd": """#), &[31000]).command.unwrap();
    assert_eq!((command.shell, command.value, command.arguments.len()), (Some(false), None, 0));
}

#[test]
fn a_line_that_the_shell_would_cut_is_noted() {
    let notes = |cmd: &str| {
        let cmd = serde_json::Value::from(cmd);
        with_executor(&format!(r#"{{"id": "a", "cmd": {cmd}}}"#)).unwrap().notes
    };
    for (cmd, kept, operator) in [
        ("echo a; sleep 5", "echo a", ";"),
        ("a && b", "a", "&"),
        ("echo \"x;y\" | cat", "echo \"x;y\"", "|"),
        ("a > /tmp/x", "a", ">"),
        ("a\nb", "a", "\\\\n"),
        ("a # why", "a", "#"),
        ("a $(b; c); d", "a $(b; c)", ";"),
    ] {
        let told = notes(cmd);
        let operator = operator.replace("\\\\", "\\");
        assert_eq!(told.len(), 1, "{cmd}");
        assert!(told[0].contains(&format!("receives '{kept}', ")), "{told:?}");
        assert!(told[0].contains(&format!("begins with '{operator}'")), "{told:?}");
    }
    for whole in
        ["'a && b; c'", "\"a | b\"", "a b#c", "a \\; b", "a $(b; c) `d|e`", "sleep 5\n", "a 'it'\\''s;'"]
    {
        assert_eq!(notes(whole), [""; 0], "{whole}");
    }
    assert_eq!(App::parse(&with(r#""cmd": "a; b""#)).unwrap().notes, [""; 0]);
}
