//! Does the daemon read a body as the proxy does?

use super::*;

/// Keys in other cases and forms, which the daemon reads as the field itself.
const DISGUISES: [&str; 4] = ["HostConfig", "hostconfig", "Ho\u{17f}tConfig", "\\u0048OSTCONFIG"];

#[tokio::test]
async fn no_disguise_of_a_key_gets_past_the_proxy() {
    let daemon = Daemon::start().await;
    for host in DISGUISES {
        let settings = r#"{"networkMODE":"host","RUNTIME":"runc","publishALLports":true,"portbindings":{"80/tcp":[{"HOSTPORT":"18080"}]}}"#;
        let body = format!(r#"{{"image":"busybox","ENV":["CALICO_IP=auto"],"{host}":{settings}}}"#);
        // The daemon reads them in this disguise: else nothing would be shown here.
        let id = daemon.create(&body).await;
        let direct = daemon.inspect(&id).await;
        assert_eq!(direct["HostConfig"]["NetworkMode"], "host", "{host}");
        assert_eq!(direct["HostConfig"]["PortBindings"]["80/tcp"][0]["HostPort"], "18080", "{host}");
        daemon.remove(&id).await;

        let creation = calico(&body);
        let id = daemon.create(std::str::from_utf8(&creation.body).unwrap()).await;
        let ours = daemon.inspect(&id).await;
        assert_eq!(ours["HostConfig"]["NetworkMode"], "none", "{host}");
        assert_eq!(ours["HostConfig"]["Runtime"], "calico", "{host}");
        assert_eq!(ours["HostConfig"]["PortBindings"], json!({}), "{host}");
        assert_eq!(ours["HostConfig"]["PublishAllPorts"], false, "{host}");
        let networks = ours["NetworkSettings"]["Networks"].as_object().unwrap();
        assert_eq!(networks.keys().collect::<Vec<_>>(), ["none"], "{host}");
        assert_eq!(creation.bound.client.network, "host");
        daemon.remove(&id).await;
    }
}

#[tokio::test]
async fn a_container_has_the_last_of_two_variables() {
    let daemon = Daemon::start().await;
    for (env, seen) in [
        (json!(["CALICO_PROFILE=a", "CALICO_PROFILE=b"]), Some("b")),
        (json!(["CALICO_PROFILE=a", "CALICO_PROFILE"]), Some("a")),
        (json!(["CALICO_PROFILE"]), None),
    ] {
        let script = "test -z \"$CALICO_PROFILE\" || exit $(printf %d \"'$CALICO_PROFILE\")";
        let host = json!({"NetworkMode": "none"});
        let body = json!({"Image": "busybox", "Cmd": ["sh", "-c", script], "Env": env, "HostConfig": host});
        let id = daemon.create(&body.to_string()).await;
        daemon.start_container(&id).await;
        let (_, ended) = daemon.ask("POST", &format!("/containers/{id}/wait"), "").await;
        let code = seen.map_or(0, |letter| i64::from(letter.as_bytes()[0]));
        assert_eq!(ended["StatusCode"], code, "{env}");
        let read = create::read(body.to_string().as_bytes(), None, &Config::default()).unwrap();
        let ours = match &read {
            Creation::Calico(creation) => creation.bound.variables.get("CALICO_PROFILE").map(String::as_str),
            Creation::Plain => None,
        };
        assert_eq!(ours, seen, "{env}");
        daemon.remove(&id).await;
    }
}

#[tokio::test]
async fn everything_else_of_a_request_arrives() {
    let daemon = Daemon::start().await;
    let host = json!({
        "Memory": 67_108_864, "CpuShares": 512, "RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3},
        "ExtraHosts": ["db:10.1.2.3"], "CapAdd": ["NET_ADMIN"], "ReadonlyRootfs": true, "Binds": ["data:/data"],
        "Ulimits": [{"Name": "nofile", "Soft": 77, "Hard": 88}], "Tmpfs": {"/t": "size=1m"}, "Init": true,
    });
    let mut body = sleeper(&json!(["CALICO_IP=auto", "A=b"]), &host);
    body["Labels"] = json!({"team": "ü\u{2028}<&>"});
    body["Hostname"] = json!("web-1");
    body["StopSignal"] = json!("SIGINT");
    body["Healthcheck"] = json!({"Test": ["CMD", "true"], "Interval": 2_000_000_000_i64});
    let direct = daemon.create(&body.to_string()).await;
    let creation = calico(&body.to_string());
    let ours = daemon.create(std::str::from_utf8(&creation.body).unwrap()).await;
    let (direct, ours) = (daemon.inspect(&direct).await, daemon.inspect(&ours).await);
    assert_eq!(ours["Config"], direct["Config"]);
    let mut expected = direct["HostConfig"].clone();
    expected["NetworkMode"] = json!("none");
    expected["Runtime"] = json!("calico");
    assert_eq!(ours["HostConfig"], expected);
}
