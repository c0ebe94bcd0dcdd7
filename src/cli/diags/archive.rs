//! The archive itself: its name, and its way onto the disk.
//!
//! The archive is written here rather than by the program `tar`, which would need the texts in files first, readable
//! by others for as long as nothing has removed them.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::write::GzEncoder;
use flate2::Compression;
use tar::{Builder, EntryType, Header};

use crate::error::FileError;

use super::bag::Findings;
use super::mask::Mask;

#[derive(Debug, thiserror::Error)]
#[error("{} exists already and is not replaced: name another file", .0.display())]
pub struct ArchiveExists(PathBuf);

/// An archive that is about to be made.
#[derive(Debug)]
pub struct Archive {
    path: PathBuf,
    /// The folder in it that holds all the rest.
    folder: String,
    time: SystemTime,
}

impl Archive {
    /// The named file, or one in this folder; refused where something of that name is there.
    pub fn named(file: Option<&Path>, time: SystemTime) -> Result<Self, ArchiveExists> {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let stamp = humantime::format_rfc3339_seconds(time).to_string().replace(['-', ':'], "");
        let folder = format!("calico-mesos-diags-{}-{stamp}", plain(host.trim()));
        let path = file.map_or_else(|| PathBuf::from(format!("{folder}.tar.gz")), Path::to_owned);
        match fs::symlink_metadata(&path) {
            Ok(_) => Err(ArchiveExists(path)),
            Err(_) => Ok(Self { path, folder, time }),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes all of it. Nothing gets past the mask: neither a text, nor a name, nor an error.
    pub fn write(&self, findings: Findings, mask: &Mask) -> Result<(), FileError> {
        let mut options = OpenOptions::new();
        options.write(true).create_new(true).mode(0o600);
        let file = options.open(&self.path).map_err(FileError::on("make", &self.path))?;
        self.fill(file, findings, mask).map_err(|source| {
            // Half an archive helps no one.
            let _ = fs::remove_file(&self.path);
            FileError::on("write", &self.path)(source)
        })
    }

    fn fill(&self, file: File, findings: Findings, mask: &Mask) -> io::Result<()> {
        let errors = match findings.errors.is_empty() {
            true => "every part was read\n".to_owned(),
            false => lines(&findings.errors),
        };
        let mut texts = findings.texts;
        texts.push(("errors.txt".to_owned(), errors));
        texts.sort();
        let mut taken = BTreeSet::new();
        let texts: Vec<(String, String)> = texts
            .into_iter()
            .map(|(name, text)| (unique(plain(&mask.text(&name)), &mut taken), mask.text(&text)))
            .collect();
        let manifest = mask.text(&self.manifest(&texts, &findings.absent));
        let mut archive = Builder::new(GzEncoder::new(file, Compression::default()));
        self.append(&mut archive, "manifest.txt", &manifest)?;
        for (name, text) in &texts {
            self.append(&mut archive, name, text)?;
        }
        let file = archive.into_inner()?.finish()?;
        file.sync_all()
    }

    fn append(&self, archive: &mut Builder<impl Write>, name: &str, text: &str) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(text.len() as u64);
        header.set_mtime(self.time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        archive.append_data(&mut header, format!("{}/{name}", self.folder), text.as_bytes())
    }

    fn manifest(&self, texts: &[(String, String)], absent: &[String]) -> String {
        let time = humantime::format_rfc3339_seconds(self.time);
        let mut manifest = format!(
            "calico-mesos {} diags, {time}\n\
             Left out, and {} in its place: passwords, tokens, keys, values of environments.\n\nbytes      file\n",
            env!("CARGO_PKG_VERSION"),
            super::mask::MASK,
        );
        for (name, text) in texts {
            manifest.push_str(&format!("{:>9}  {name}\n", text.len()));
        }
        if !absent.is_empty() {
            let mut absent = absent.to_vec();
            absent.sort();
            manifest.push_str(&format!("\nnot on this host:\n{}", lines(&absent)));
        }
        manifest
    }
}

fn lines(list: &[String]) -> String {
    list.iter().map(|line| format!("{line}\n")).collect()
}

/// A name that means nothing but itself to whatever unpacks it.
fn plain(name: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let name: String = name.chars().map(|c| if good(c) { c } else { '_' }).collect();
    name.replace("..", "__").trim_matches('/').to_owned()
}

/// Two names may become one.
fn unique(name: String, taken: &mut BTreeSet<String>) -> String {
    let numbered = (1..).map(|number| if number == 1 { name.clone() } else { format!("{name}.{number}") });
    let free = numbered.into_iter().find(|name| !taken.contains(name)).unwrap_or_default();
    taken.insert(free.clone());
    free
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{symlink, MetadataExt};

    use super::*;

    fn archive(path: &Path) -> Result<Archive, ArchiveExists> {
        Archive::named(Some(path), SystemTime::now())
    }

    #[test]
    fn nothing_is_replaced_and_no_one_else_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.tar.gz");
        let first = archive(&path).unwrap();
        first.write(Findings::default(), &Mask::default()).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let length = fs::metadata(&path).unwrap().len();
        assert!(archive(&path).is_err());
        assert!(first.write(Findings::default(), &Mask::default()).is_err());
        assert_eq!(fs::metadata(&path).unwrap().len(), length);
        let link = folder.path().join("link");
        symlink(folder.path().join("elsewhere"), &link).unwrap();
        assert!(archive(&link).is_err());
        let name = Archive::named(None, UNIX_EPOCH).unwrap().path().display().to_string();
        assert!(
            name.starts_with("calico-mesos-diags-") && name.ends_with("-19700101T000000Z.tar.gz"),
            "{name}"
        );
    }

    #[test]
    fn names_stay_below_the_folder() {
        assert_eq!(plain("/../a b\n/c"), "__/a_b_/c");
        let mut taken = BTreeSet::new();
        assert_eq!([unique("a".into(), &mut taken), unique("a".into(), &mut taken)], ["a", "a.2"]);
    }
}
