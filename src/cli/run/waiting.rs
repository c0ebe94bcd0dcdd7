//! What a task that does not run yet is waiting for, read from its executor's log.

use std::path::Path;
use std::time::Duration;

/// What comes after a line that begins like this.
const STEPS: [(&str, &str); 5] = [
    ("registered with agent", "the agent to hand it to the executor"),
    ("launching as container ", "Docker to create the container"),
    ("created container ", "Docker to start the container"),
    ("killing", "the end of the container"),
    ("Felix was done with ", "Docker to start the container"),
];

/// `waiting for Docker to create the container (8 s so far)`, or the last thing that the executor wrote.
pub fn describe(stderr: &Path, waited: Duration) -> String {
    let log = String::from_utf8_lossy(&std::fs::read(stderr).unwrap_or_default()).into_owned();
    let last = log.lines().rev().map(message).find(|message| !message.is_empty());
    let waited = waited.as_secs();
    let Some(message) = last else {
        return format!("waiting for the executor to register ({waited} s so far)");
    };
    match STEPS.iter().find(|(begin, _)| message.starts_with(begin)) {
        Some((_, what)) => format!("waiting for {what} ({waited} s so far)"),
        None => format!("waiting after {waited} s: {message}"),
    }
}

/// A line of the executor's without severity, time, process and task; any other as it is.
fn message(line: &str) -> &str {
    let mut parts = line.splitn(4, ' ');
    let (Some(severity), Some(time), Some(process), Some(rest)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return line;
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_ours = severity.starts_with(['I', 'W', 'E', 'D']) && severity.get(1..).is_some_and(digits);
    if !(is_ours && time.contains(':') && digits(process)) {
        return line;
    }
    // The task's id has no blank.
    match rest.split_once(": ") {
        Some((task, message)) if !task.contains(' ') => message,
        _ => rest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waiting_task_says_what_it_is_waiting_for() {
        let dir = tempfile::tempdir().unwrap();
        let log = dir.path().join("stderr");
        let told = || describe(&log, Duration::from_secs(8));
        assert_eq!(told(), "waiting for the executor to register (8 s so far)");
        let head = "I1123 19:02:11.042 4711";
        for (line, expected) in [
            ("registered with agent host7", "waiting for the agent to hand it to the executor (8 s so far)"),
            (
                "a.1: launching as container 1b-2 (Docker)",
                "waiting for Docker to create the container (8 s so far)",
            ),
            ("a.1: created container mesos-1 (77)", "waiting for Docker to start the container (8 s so far)"),
            (
                "a.1: etcd: refused; trying again for up to 60 s",
                "waiting after 8 s: etcd: refused; trying again for up to 60 s",
            ),
        ] {
            std::fs::write(&log, format!("{head} a.1: first\n{head} {line}\n")).unwrap();
            assert_eq!(told(), expected);
        }
        std::fs::write(&log, "killed by 4 signals today\n").unwrap();
        assert_eq!(told(), "waiting after 8 s: killed by 4 signals today");
    }
}
