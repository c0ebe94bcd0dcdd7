//! The section `[proxy]`: where `calico-mesos proxy` listens, and for how long it holds what has ended.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::duration;

/// The Docker API proxy.
#[derive(Debug, Clone, PartialEq, Deserialize, Serialize)]
#[serde(default, deny_unknown_fields)]
pub struct Proxy {
    /// An address of loopback with a port; empty: no TCP port, which every local user reaches.
    #[serde(with = "or_empty")]
    pub listen: Option<SocketAddr>,
    /// A unix socket for root and the group docker; empty: none.
    #[serde(with = "or_empty")]
    pub socket: Option<PathBuf>,
    /// Docker itself, in the forms of `docker.host`; default: that, then Docker's own socket.
    pub docker: Option<String>,
    /// How long a container's namespace, endpoint and address are held after its end, for a restart.
    #[serde(with = "duration")]
    pub linger: Duration,
}

impl Default for Proxy {
    fn default() -> Self {
        Self {
            listen: Some(([127, 0, 0, 1], 2377).into()),
            socket: Some("/run/calico-mesos/docker.sock".into()),
            docker: None,
            linger: Duration::from_secs(10),
        }
    }
}

/// A value that an empty text switches off.
mod or_empty {
    use serde::de::Error;

    use super::*;

    pub fn deserialize<'de, T: OrEmpty, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<T>, D::Error> {
        let text = String::deserialize(deserializer)?;
        (!text.is_empty()).then(|| T::read(&text)).transpose().map_err(D::Error::custom)
    }

    pub fn serialize<T: OrEmpty, S: Serializer>(value: &Option<T>, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&value.as_ref().map_or_else(String::new, T::write))
    }

    pub trait OrEmpty: Sized {
        fn read(text: &str) -> Result<Self, String>;
        fn write(&self) -> String;
    }

    impl OrEmpty for SocketAddr {
        fn read(text: &str) -> Result<Self, String> {
            text.parse()
                .map_err(|_| format!("'{text}' is not an address with a port, such as 127.0.0.1:2377"))
        }

        fn write(&self) -> String {
            self.to_string()
        }
    }

    impl OrEmpty for PathBuf {
        fn read(text: &str) -> Result<Self, String> {
            Ok(text.into())
        }

        fn write(&self) -> String {
            self.display().to_string()
        }
    }
}
