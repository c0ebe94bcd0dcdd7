//! Links of living, dead and unknown tasks, and launches that race for one.

use super::*;
use crate::calico::Identity;
use crate::task::record::journal::JournalEntry;

fn world() -> (tempfile::TempDir, Config) {
    let folder = tempfile::tempdir().unwrap();
    let mut config = Config::default();
    config.paths.run = folder.path().join("run");
    config.paths.state = folder.path().join("state");
    (folder, config)
}

fn task(config: &Config, name: &str) -> JournalEntry {
    let container = ContainerId::random();
    let identity = Identity::new("a", &container, "/web", name);
    Journal::open(&config.paths.journal()).unwrap().begin(Record::new(container, identity)).unwrap()
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn holder_of(config: &Config, address: &str) -> Option<PathBuf> {
    fs::read_link(link(&config.paths, ip(address))).ok()
}

#[tokio::test]
async fn an_address_of_a_living_task_is_refused_with_its_name() {
    let (_folder, config) = world();
    let (one, other) = (task(&config, "one.1"), task(&config, "other.1"));
    let wanted = [ip("203.0.113.7"), ip("2001:db8::7")];
    let holds = Holds::new(&config, &one.record);
    assert_eq!(holds.take(&wanted).await.unwrap(), []);
    assert_eq!(holds.take(&wanted).await.unwrap(), [], "a launch may take its own once more");
    let held = Holds::new(&config, &other.record).take(&wanted).await.unwrap();
    let names: Vec<_> = held.iter().map(|(address, holder)| (*address, holder.to_string())).collect();
    assert_eq!(names, wanted.map(|address| (address, "one.1 (/web) on a".to_owned())));
    // Its owner dies: the workload may live on until a cleaner has ended it.
    drop(one);
    assert_eq!(Holds::new(&config, &other.record).take(&wanted).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_link_whose_task_is_gone_is_replaced() {
    let (_folder, config) = world();
    let (gone, new) = (task(&config, "gone.1"), task(&config, "new.1"));
    Holds::new(&config, &gone.record).take(&[ip("203.0.113.7")]).await.unwrap();
    gone.finish().unwrap();
    symlink("not a container", link(&config.paths, ip("203.0.113.8"))).unwrap();
    let wanted = [ip("203.0.113.7"), ip("203.0.113.8")];
    assert_eq!(Holds::new(&config, &new.record).take(&wanted).await.unwrap(), []);
    for address in ["203.0.113.7", "203.0.113.8"] {
        assert_eq!(holder_of(&config, address), Some(target(&new.record.container)));
    }
    assert_eq!(give_back(&config, &new.record.container).unwrap(), 2);
    assert_eq!(links(&config), Vec::<PathBuf>::new());
}

/// A launch that is frozen while it replaces a link.
#[tokio::test]
async fn a_lock_that_stays_taken_ends_the_wait() {
    let (_folder, config) = world();
    let (gone, new) = (task(&config, "gone.1"), task(&config, "new.1"));
    Holds::new(&config, &gone.record).take(&[ip("203.0.113.7")]).await.unwrap();
    gone.finish().unwrap();
    let frozen = lock(&config.paths.addresses()).await.unwrap();
    let error = Holds::new(&config, &new.record).take(&[ip("203.0.113.7")]).await.unwrap_err();
    assert!(error.to_string().contains("holds the lock"), "{error}");
    drop(frozen);
    assert_eq!(Holds::new(&config, &new.record).take(&[ip("203.0.113.7")]).await.unwrap(), []);
}

#[tokio::test]
async fn what_a_new_plan_leaves_out_is_given_back() {
    let (_folder, config) = world();
    let one = task(&config, "one.1");
    let holds = Holds::new(&config, &one.record);
    holds.take(&[ip("203.0.113.7"), ip("2001:db8::7")]).await.unwrap();
    holds.take(&[ip("203.0.113.9"), ip("2001:db8::7")]).await.unwrap();
    assert_eq!(holder_of(&config, "203.0.113.7"), None);
    assert!(holder_of(&config, "203.0.113.9").is_some() && holder_of(&config, "2001:db8::7").is_some());
}

/// Each round: a stale link, and sixteen launches that all find it so.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn one_of_many_launches_replaces_a_stale_link() {
    let (_folder, config) = world();
    let address = ip("203.0.113.7");
    for round in 0..20 {
        let gone = task(&config, "gone.1");
        let _ = fs::remove_file(link(&config.paths, address));
        Holds::new(&config, &gone.record).take(&[address]).await.unwrap();
        gone.finish().unwrap();
        let mut racing = tokio::task::JoinSet::new();
        for _ in 0..16 {
            let config = config.clone();
            racing.spawn(async move {
                let entry = task(&config, "racer.1");
                let won = Holds::new(&config, &entry.record).take(&[address]).await.unwrap().is_empty();
                (won, entry)
            });
        }
        let results = racing.join_all().await;
        let winners: Vec<_> = results.iter().filter(|(won, _)| *won).collect();
        assert_eq!(winners.len(), 1, "round {round}");
        let winner = &winners[0].1.record.container;
        assert_eq!(holder_of(&config, "203.0.113.7"), Some(target(winner)));
        results.into_iter().for_each(|(_, entry)| entry.finish().unwrap());
    }
}
