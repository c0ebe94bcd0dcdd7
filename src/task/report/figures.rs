//! Figures of this host and of Calico's pools for Prometheus, as a file for the textfile collector of its node
//! exporter.
//!
//! The pools' figures are the cluster's, the same from every host: one host that writes them is enough.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::calico::{Datastore, PoolUsage};
use crate::config::Config;
use crate::error::chain;
use crate::host::files;
use crate::limits::ETCD_FIGURES;

/// What a run of the cleaner found.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Figures {
    /// Records whose executors live.
    pub tasks: usize,
    /// Records whose executors are dead, and that are still there.
    pub backlog: usize,
    /// Things of ours that nothing backs.
    pub leaks: usize,
    /// Living tasks of which the datastore lacked something.
    pub lost: usize,
    /// Those among them with an address that the datastore gives to something else.
    pub conflicts: usize,
    /// Living executors by their version.
    pub executors: BTreeMap<String, usize>,
    /// `None`: the datastore did not answer.
    pub pools: Option<Vec<PoolUsage>>,
}

#[derive(Debug, thiserror::Error)]
#[error("cannot write the figures for Prometheus to {path}")]
pub struct FiguresError {
    path: PathBuf,
    #[source]
    source: io::Error,
}

/// How full the pools are. Not read where it is not used, because that reads every block of the cluster.
pub async fn pools(config: &Config) -> Option<Vec<PoolUsage>> {
    config.metrics.textfile.as_ref()?;
    let read = async { Datastore::connect(config).await?.usage().await };
    match tokio::time::timeout(ETCD_FIGURES, read).await {
        Ok(Ok(pools)) => return Some(pools),
        Ok(Err(error)) => tracing::warn!("no figures of the pools: {}", chain(&error)),
        Err(_) => tracing::warn!("no figures of the pools: etcd did not answer within {ETCD_FIGURES:?}"),
    }
    None
}

/// Writes `metrics.textfile`, if it is configured. A reader finds the old figures or the new ones, never half.
pub fn write(config: &Config, figures: &Figures) -> Result<(), FiguresError> {
    let Some(path) = &config.metrics.textfile else { return Ok(()) };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    files::replace(path, |new| new.write_all(render(figures, now).as_bytes()))
        .map_err(|source| FiguresError { path: path.clone(), source })
}

/// The text format of Prometheus.
fn render(figures: &Figures, now: Duration) -> String {
    let mut text = Text::default();
    text.gauge("calico_mesos_tasks", "Calico tasks of this host whose executors live.");
    text.value(&[], figures.tasks);
    text.gauge("calico_mesos_executors", "Living executors by version.");
    for (version, count) in &figures.executors {
        text.value(&[("version", version)], count);
    }
    text.gauge("calico_mesos_backlog", "Tasks of dead executors that are still to be taken down.");
    text.value(&[], figures.backlog);
    text.gauge("calico_mesos_leaks", "Things of ours that no task backs, as of the last clean-up.");
    text.value(&[], figures.leaks);
    text.gauge(
        "calico_mesos_lost",
        "Living tasks of which the datastore had lost something, as of the last clean-up.",
    );
    text.value(&[], figures.lost);
    text.gauge("calico_mesos_conflicts", "Living tasks whose address the datastore gives to something else.");
    text.value(&[], figures.conflicts);
    text.gauge("calico_mesos_last_run_timestamp_seconds", "When the last clean-up ended.");
    text.value(&[], now.as_secs());
    text.gauge("calico_mesos_datastore_up", "Whether Calico's datastore answered the last clean-up.");
    text.value(&[], u8::from(figures.pools.is_some()));
    let pools = figures.pools.as_deref().unwrap_or_default();
    text.gauge("calico_mesos_pool_enabled", "Whether the IP pool gives out addresses.");
    for pool in pools {
        text.value(&labels(pool, &pool.cidr.to_string(), None), u8::from(pool.enabled));
    }
    text.gauge("calico_mesos_pool_addresses", "Addresses of the IP pool by what they are: all of it in sum.");
    for pool in pools {
        let states = [("allocated", pool.allocated), ("reserved", pool.reserved), ("free", pool.free)];
        for (state, count) in states {
            text.value(&labels(pool, &pool.cidr.to_string(), Some(state)), count);
        }
    }
    text.gauge("calico_mesos_pool_blocks", "Blocks of the IP pool: of a host, of none, and to be claimed.");
    for pool in pools {
        let states =
            [("affine", pool.affine_blocks), ("loose", pool.loose_blocks), ("free", pool.free_blocks)];
        for (state, count) in states {
            text.value(&labels(pool, &pool.cidr.to_string(), Some(state)), count);
        }
    }
    text.text
}

fn labels<'a>(pool: &'a PoolUsage, cidr: &'a str, state: Option<&'a str>) -> Vec<(&'a str, &'a str)> {
    let state = state.map(|state| ("state", state));
    [("pool", pool.name.as_str()), ("cidr", cidr)].into_iter().chain(state).collect()
}

#[derive(Default)]
struct Text {
    text: String,
    gauge: &'static str,
}

impl Text {
    /// What the values that follow are.
    fn gauge(&mut self, name: &'static str, help: &str) {
        self.gauge = name;
        self.text.push_str(&format!("# HELP {name} {help}\n# TYPE {name} gauge\n"));
    }

    /// One value of the gauge named last.
    fn value(&mut self, labels: &[(&str, &str)], value: impl Display) {
        let escaped = |text: &str| text.replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        let labels: Vec<String> =
            labels.iter().map(|(label, text)| format!("{label}=\"{}\"", escaped(text))).collect();
        let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
        self.text.push_str(&format!("{}{labels} {value}\n", self.gauge));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn pool(name: &str) -> PoolUsage {
        PoolUsage {
            name: name.into(),
            cidr: "192.168.0.0/16".parse().unwrap(),
            enabled: true,
            allocated: 3,
            reserved: 2,
            free: 65_531,
            affine_blocks: 1,
            loose_blocks: 0,
            free_blocks: 1023,
            damaged_blocks: 0,
        }
    }

    type Sample = (String, BTreeMap<String, String>, f64);

    /// The text format, read as strictly as its description has it.
    fn parse(text: &str) -> Vec<Sample> {
        let name =
            |text: &str| text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') && !text.is_empty();
        assert!(text.ends_with('\n'));
        let (mut samples, mut family) = (Vec::new(), String::new());
        let mut seen = std::collections::BTreeSet::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                family = help.split(' ').next().unwrap().to_owned();
                assert!(name(&family) && seen.insert(family.clone()), "{line}");
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                assert_eq!(kind, format!("{family} gauge"));
                continue;
            }
            let (series, value) = line.rsplit_once(' ').unwrap();
            let (series, rest) = series.split_once('{').unwrap_or((series, "}"));
            assert_eq!(series, family, "{line}");
            let mut labels = BTreeMap::new();
            let mut rest = rest.strip_suffix('}').unwrap();
            while !rest.is_empty() {
                let (label, quoted) = rest.split_once("=\"").unwrap();
                let (mut text, mut chars) = (String::new(), quoted.char_indices());
                let end = loop {
                    match chars.next().unwrap() {
                        (at, '"') => break at,
                        (_, '\\') => text.push(match chars.next().unwrap().1 {
                            'n' => '\n',
                            c @ ('"' | '\\') => c,
                            c => panic!("\\{c} in {line}"),
                        }),
                        (_, c) => text.push(c),
                    }
                };
                assert!(name(label) && labels.insert(label.to_owned(), text).is_none(), "{line}");
                rest = quoted[end + 1..].trim_start_matches(',');
            }
            samples.push((series.to_owned(), labels, value.parse().unwrap()));
        }
        samples
    }

    fn value(samples: &[Sample], name: &str, wanted: &[(&str, &str)]) -> f64 {
        let fits = |labels: &BTreeMap<String, String>| {
            wanted.iter().all(|(label, text)| labels.get(*label).is_some_and(|found| found == text))
        };
        let mut found = samples.iter().filter(|(series, labels, _)| series == name && fits(labels));
        let (Some((_, _, value)), None) = (found.next(), found.next()) else { panic!("{name} {wanted:?}") };
        *value
    }

    #[test]
    fn prometheus_reads_what_is_written() {
        let odd = "odd \"name\"\\,\n}";
        let figures = Figures {
            tasks: 31,
            backlog: 2,
            leaks: 1,
            lost: 3,
            conflicts: 2,
            executors: [("0.1.0".to_owned(), 30), ("0.2.0".to_owned(), 1)].into(),
            pools: Some(vec![pool("default"), pool(odd)]),
        };
        let samples = parse(&render(&figures, Duration::from_secs(1_795_460_531)));
        assert_eq!(samples.len(), 9 + 2 * 7);
        for (name, labels, expected) in [
            ("calico_mesos_tasks", [].as_slice(), 31.0),
            ("calico_mesos_backlog", &[], 2.0),
            ("calico_mesos_leaks", &[], 1.0),
            ("calico_mesos_lost", &[], 3.0),
            ("calico_mesos_conflicts", &[], 2.0),
            ("calico_mesos_executors", &[("version", "0.2.0")], 1.0),
            ("calico_mesos_datastore_up", &[], 1.0),
            ("calico_mesos_last_run_timestamp_seconds", &[], 1_795_460_531.0),
            ("calico_mesos_pool_enabled", &[("pool", odd), ("cidr", "192.168.0.0/16")], 1.0),
            ("calico_mesos_pool_addresses", &[("pool", odd), ("state", "free")], 65_531.0),
            ("calico_mesos_pool_blocks", &[("pool", "default"), ("state", "affine")], 1.0),
        ] {
            assert_eq!(value(&samples, name, labels), expected, "{name}");
        }
    }

    #[test]
    fn a_datastore_that_is_away_has_no_figures() {
        let samples = parse(&render(&Figures::default(), Duration::ZERO));
        assert_eq!(value(&samples, "calico_mesos_datastore_up", &[]), 0.0);
        assert!(!samples.iter().any(|(name, _, _)| name.contains("pool")));
    }

    #[test]
    fn the_file_is_replaced_as_a_whole() {
        let folder = tempfile::tempdir().unwrap();
        let mut config = Config::default();
        write(&config, &Figures::default()).unwrap();
        let path = folder.path().join("calico-mesos.prom");
        config.metrics.textfile = Some(path.clone());
        for tasks in [1, 2] {
            write(&config, &Figures { tasks, ..Figures::default() }).unwrap();
            assert!(std::fs::read_to_string(&path)
                .unwrap()
                .contains(&format!("calico_mesos_tasks {tasks}\n")));
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, 0o644);
        assert_eq!(folder.path().read_dir().unwrap().count(), 1);
        config.metrics.textfile = Some(folder.path().join("missing/x.prom"));
        assert!(chain(&write(&config, &Figures::default()).unwrap_err()).contains("missing/x.prom"));
    }
}
