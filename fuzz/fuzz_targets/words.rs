//! Everything that is a line or a few words: the gate, the runtime's command line, the agent's, addresses, and the
//! variables of a task.
#![no_main]

use std::ffi::OsString;

use calico_mesos::gate::{Request, Verdict};
use calico_mesos::mesos::duration;
use calico_mesos::mesos::flags::Flags;
use calico_mesos::mesos::libprocess::Upid;
use calico_mesos::names::{service_name, ContainerId};
use calico_mesos::runtime::Call;
use calico_mesos::task::request::calico::CalicoRequest;
use calico_mesos::workload::DockerHost;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Verdict::Refused(reason) = Verdict::parse(text) {
        assert!(Verdict::Refused(reason).line().len() <= calico_mesos::gate::MAX_LINE);
    }
    let _ = Request::parse(text);
    let words: Vec<&str> = text.split(' ').collect();
    let call = Call::parse(words.iter().map(OsString::from).collect());
    if let Ok(id) = call.id() {
        assert!(!id.contains('/') && !id.starts_with('.'));
    }
    if let Ok(flags) = Flags::parse(words) {
        let _ = (flags.container_id(), flags.task_environment(), flags.default_container_dns());
    }
    if let Ok(upid) = text.parse::<Upid>() {
        assert_eq!(upid.to_string().parse::<Upid>().as_ref(), Ok(&upid));
    }
    if let Ok(host) = DockerHost::parse(text) {
        assert_eq!(DockerHost::parse(&host.to_string()), Ok(host));
    }
    let _ = (duration::parse(text), ContainerId::parse(text));
    assert!(service_name(text).len() <= 56);
    for name in ["CALICO_IP", "CALICO_PROFILE", "CALICO_POOL", "SERVICE_PORT"] {
        if let Err(failure) = CalicoRequest::read(|asked| (asked == name).then_some(text), true) {
            assert!(!failure.message.contains(char::is_control), "{failure}");
        }
    }
});
