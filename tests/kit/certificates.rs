//! A certificate authority a test, made by openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

pub struct Authority {
    dir: PathBuf,
    pub ca: PathBuf,
}

/// Certificate and key.
pub type Pair = (PathBuf, PathBuf);

impl Authority {
    pub fn new(dir: &Path) -> Self {
        std::fs::create_dir_all(dir).unwrap();
        let authority = Self { dir: dir.into(), ca: dir.join("ca.pem") };
        authority
            .openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -subj /CN=ca -days 2");
        authority
    }

    /// Good for `localhost` and 127.0.0.1.
    pub fn server(&self, name: &str) -> Pair {
        self.server_of(name, "DNS:localhost,IP:127.0.0.1")
    }

    /// Good for these names.
    pub fn server_of(&self, name: &str, names: &str) -> Pair {
        let names = format!("subjectAltName={names}");
        self.certificate(name, &format!("{names}\nextendedKeyUsage=serverAuth,clientAuth"))
    }

    pub fn client(&self, name: &str) -> Pair {
        self.certificate(name, "extendedKeyUsage=clientAuth")
    }

    fn certificate(&self, name: &str, extensions: &str) -> Pair {
        std::fs::write(self.dir.join("ext"), extensions).unwrap();
        self.openssl(&format!(
            "req -newkey rsa:2048 -nodes -keyout {name}.key -out {name}.csr -subj /CN={name}"
        ));
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out {name}.pem -days 2 -extfile ext"));
        (self.dir.join(format!("{name}.pem")), self.dir.join(format!("{name}.key")))
    }

    fn openssl(&self, arguments: &str) {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(&self.dir).output().unwrap();
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
