//! Real pulls, from a registry of one image that lives in the test and wants a password.
//!
//! Docker takes a registry on 127.0.0.1 without TLS. Only what a pull needs is spoken: the manifest, its
//! configuration and one layer.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use calico_mesos::error::{Blame, Code};
use calico_mesos::rig::daemons::Dockerd;
use calico_mesos::workload::{
    find_credentials, ContainerSpec, Credentials, Docker, DockerHost, ImageRequest,
};
use http_body_util::Full;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;

use crate::daemon::{own_daemon, own_dir, run};

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
/// Its base64 has both signs that differ between the two alphabets, wherever it stands in a text.
const PASSWORD: &str = "~?~>~??>>~~~???>>>";
/// `user:` and the password.
const BASIC: &str = "Basic dXNlcjp+P34+fj8/Pj5+fn4/Pz8+Pj4=";

/// Blobs and manifests by the last part of their path, with their types.
type Store = BTreeMap<String, (&'static str, Bytes)>;

struct Registry {
    address: String,
    /// The Authorization header of every request.
    seen: Arc<Mutex<Vec<Option<String>>>>,
}

impl Registry {
    async fn start(layer: Vec<u8>) -> Self {
        let store = Arc::new(store(layer));
        let seen: Arc<Mutex<Vec<Option<String>>>> = Arc::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let requests = seen.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (store, requests) = (store.clone(), requests.clone());
                let service = service_fn(move |request| {
                    let answer = answer(&store, &requests, &request);
                    async move { Ok::<_, Infallible>(answer) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self { address, seen }
    }
}

fn answer(
    store: &Store,
    seen: &Mutex<Vec<Option<String>>>,
    request: &Request<hyper::body::Incoming>,
) -> Response<Full<Bytes>> {
    let given = request.headers().get(AUTHORIZATION).map(|value| value.to_str().unwrap().to_owned());
    let welcome = given.as_deref() == Some(BASIC);
    seen.lock().unwrap().push(given);
    let plain = |status: StatusCode| Response::builder().status(status);
    let last = request.uri().path().rsplit('/').next().unwrap();
    let answer = match store.get(last) {
        _ if !welcome => plain(StatusCode::UNAUTHORIZED)
            .header(WWW_AUTHENTICATE, "Basic realm=\"test\"")
            .body(Full::default()),
        Some((kind, bytes)) => plain(StatusCode::OK)
            .header(CONTENT_TYPE, *kind)
            .header("Docker-Content-Digest", digest(bytes))
            .body(Full::from(bytes.clone())),
        None if request.uri().path() == "/v2/" => plain(StatusCode::OK).body(Full::default()),
        None => plain(StatusCode::NOT_FOUND).body(Full::default()),
    };
    answer.unwrap()
}

fn digest(bytes: &[u8]) -> String {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let output = Command::new("sha256sum").arg(file.path()).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    format!("sha256:{}", text.split_whitespace().next().unwrap())
}

/// The image `app:1`, of one layer that is not compressed.
fn store(layer: Vec<u8>) -> Store {
    let config = json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["sh", "-c", "echo pulled"]},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST,
        "config": {
            "mediaType": "application/vnd.docker.container.image.v1+json",
            "size": config.len(),
            "digest": digest(&config),
        },
        "layers": [{
            "mediaType": "application/vnd.docker.image.rootfs.diff.tar.gzip",
            "size": layer.len(),
            "digest": digest(&layer),
        }],
    });
    let manifest = manifest.to_string().into_bytes();
    let blob = |bytes: Vec<u8>| (digest(&bytes), ("application/octet-stream", Bytes::from(bytes)));
    let of_digest = (digest(&manifest), (MANIFEST, Bytes::from(manifest.clone())));
    [blob(config), blob(layer), of_digest, ("1".to_owned(), (MANIFEST, Bytes::from(manifest)))].into()
}

/// Busybox's files, as the daemon has them.
fn busybox_layer(daemon: &Dockerd, dir: &Path) -> Vec<u8> {
    let docker = |words: &[&str]| {
        let output =
            Command::new("docker").args(["-H", &daemon.host()]).args(words).stdin(Stdio::null()).output();
        assert!(output.expect("this test needs the docker CLI").status.success(), "{words:?}");
    };
    let layer = dir.join("layer.tar");
    docker(&["create", "--name=layer", "--network=none", "busybox", "true"]);
    docker(&["export", "--output", layer.to_str().unwrap(), "layer"]);
    docker(&["rm", "layer"]);
    std::fs::read(layer).unwrap()
}

#[tokio::test]
async fn an_image_behind_a_password_is_pulled_with_the_apps_credentials() {
    let dir = own_dir();
    let mut daemon = own_daemon(dir.path()).await;
    let docker = Docker::connect(&DockerHost::parse(&daemon.host()).unwrap(), "").await.unwrap();
    let registry = Registry::start(busybox_layer(&daemon, dir.path())).await;
    let image = format!("{}/team/app:1", registry.address);
    let pull = |credentials: Option<Credentials>| {
        let (docker, image) = (docker.clone(), image.clone());
        async move {
            let request =
                ImageRequest { image: &image, credentials: credentials.as_ref(), ..Default::default() };
            docker.ensure_image(request, &mut |_| ()).await
        }
    };

    let failure = pull(None).await.unwrap_err().failure();
    assert_eq!((failure.code, failure.blame()), (Code::Image, Blame::App), "{failure}");
    assert!(failure.message.contains(".docker/config.json"), "{failure}");

    let sandbox = dir.path().join("sandbox");
    std::fs::create_dir_all(sandbox.join(".docker")).unwrap();
    let entry = |password: &str| {
        json!({"auths": {registry.address.as_str(): {"username": "user", "password": password}}}).to_string()
    };
    std::fs::write(sandbox.join(".docker/config.json"), entry("wrong")).unwrap();
    let failure = pull(find_credentials(&image, &sandbox, None)).await.unwrap_err().failure();
    assert_eq!((failure.code, failure.message.contains("wrong")), (Code::Image, false), "{failure}");

    let basic = BASIC.trim_start_matches("Basic ");
    let by_auth = json!({"auths": {format!("http://{}/v2/", registry.address): {"auth": basic}}});
    for (file, text) in
        [(".docker/config.json", entry(PASSWORD)), (".docker/config.json", by_auth.to_string())]
    {
        std::fs::write(sandbox.join(file), text).unwrap();
        pull(find_credentials(&image, &sandbox, None)).await.unwrap();
        let spec = ContainerSpec { image: image.clone(), network: "none".into(), ..Default::default() };
        assert_eq!(run(&docker, &spec).await.unwrap().stdout, "pulled\n");
        let path = format!("/images/{image}");
        assert_eq!(daemon.request("DELETE", &path, &[]).await.unwrap().0, 200);
    }
    let seen = registry.seen.lock().unwrap().clone();
    assert!(seen.iter().any(|given| given.as_deref() == Some(BASIC)), "{seen:?}");
    daemon.stop().await;
}
