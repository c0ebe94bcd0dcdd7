//! What programs of the host print, where the host has them.

use std::io;
use std::process::Stdio;

use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::bag::{Bag, LONGEST};

/// Behind the operator's own folders: a shell without root's has none of these.
const FOLDERS: &str = "/usr/local/sbin:/usr/sbin:/sbin:/usr/local/bin:/usr/bin:/bin";
/// Of its complaints, in bytes.
const COMPLAINTS: u64 = 4096;

/// What one command line prints, as a text of this name.
pub async fn part(name: &'static str, line: &'static str, bag: Bag) {
    let words: Vec<&str> = line.split_whitespace().collect();
    run(name, &words, &bag).await;
}

/// The same for a command line that is put together.
pub async fn run(name: &str, words: &[&str], bag: &Bag) {
    let Some((program, arguments)) = words.split_first() else { return };
    match output(program, arguments).await {
        Ok((text, complaints, is_well)) => {
            let title = format!("# {}\n", words.join(" "));
            bag.add(name, format!("{title}{text}"));
            if !is_well {
                bag.error(name, format!("'{}' failed: {complaints}", words.join(" ")));
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bag.absent(name, &format!("the program {program} is not here"));
        }
        Err(error) => bag.error(name, format!("cannot run '{}': {error}", words.join(" "))),
    }
}

/// Dropped, it kills the program.
async fn output(program: &str, arguments: &[&str]) -> io::Result<(String, String, bool)> {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut child = Command::new(find(program, &path).ok_or(io::ErrorKind::NotFound)?)
        .args(arguments)
        .env_clear()
        .env("PATH", format!("{path}:{FOLDERS}"))
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let (Some(mut stdout), Some(mut stderr)) = (child.stdout.take(), child.stderr.take()) else {
        return Err(io::Error::other("its output cannot be read"));
    };
    let (mut text, mut complaints) = (Vec::new(), Vec::new());
    let reading = async {
        let read = (&mut stdout).take(LONGEST as u64 + 1).read_to_end(&mut text).await;
        // One that has more to print ends on a closed pipe.
        drop(stdout);
        read
    };
    let complaining = async {
        let read = (&mut stderr).take(COMPLAINTS).read_to_end(&mut complaints).await;
        drop(stderr);
        read
    };
    let (read, _) = tokio::join!(reading, complaining);
    read?;
    let status = child.wait().await?;
    let is_well = status.success() || text.len() > LONGEST;
    let words = match complaints.is_empty() {
        true => status.to_string(),
        false => String::from_utf8_lossy(&complaints).trim().replace('\n', "; "),
    };
    Ok((String::from_utf8_lossy(&text).into_owned(), words, is_well))
}

fn find(program: &str, path: &str) -> Option<std::path::PathBuf> {
    let folders = path.split(':').chain(FOLDERS.split(':')).filter(|folder| folder.starts_with('/'));
    folders.map(|folder| std::path::Path::new(folder).join(program)).find(|path| path.is_file())
}
