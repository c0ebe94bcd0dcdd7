//! `policy show`: the order in which Felix applies policies, and what each selects.

use serde_json::{json, Value};

use calico_mesos::calico::Wanted;

use crate::datastore::{auto, task, RESOURCES};
use crate::desk::{Desk, NODE};

const POOL: (&str, &str) = ("web", r#"{"cidr":"10.65.0.0/24","blockSize":29}"#);

async fn put(desk: &mut Desk, path: &str, spec: Value) {
    let name = path.rsplit('/').next().unwrap();
    let record = json!({"metadata": {"name": name}, "spec": spec});
    desk.world.put(&format!("{RESOURCES}/{path}"), &record.to_string()).await;
}

#[tokio::test]
async fn policies_come_in_felixs_order_with_what_they_select() {
    let mut desk = Desk::new(&[NODE], &[POOL]).await;
    assert_eq!(desk.done("policy show").lines().count(), 1);
    for app in ["web", "db"] {
        let labelled = Wanted { labels: [("app".to_owned(), app.to_owned())].into(), ..auto() };
        desk.world.launch(&task(NODE), &labelled).await.unwrap();
    }
    put(&mut desk, "tiers/default", json!({"order": 1_000_000, "defaultAction": "Deny"})).await;
    put(&mut desk, "tiers/kube-admin", json!({"order": 1000, "defaultAction": "Pass"})).await;
    put(
        &mut desk,
        "globalnetworkpolicies/default.web-in",
        json!({"selector": "app == 'web'", "order": 20, "types": ["Ingress"], "ingress": [{"action": "Allow"}]}),
    )
    .await;
    put(
        &mut desk,
        "globalnetworkpolicies/members",
        json!({"selector": "has(mesos-profile/dev)", "order": 10, "types": ["Ingress", "Egress"]}),
    )
    .await;
    put(&mut desk, "networkpolicies/default/default.all", json!({})).await;
    put(&mut desk, "networkpolicies/other/default.none", json!({})).await;
    put(
        &mut desk,
        "globalnetworkpolicies/kube-admin.x",
        json!({"tier": "kube-admin", "namespaceSelector": "all()"}),
    )
    .await;
    let table = desk.done("policy show");
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        rows,
        [
            vec!["TIER", "ORDER", "POLICY", "NAMESPACE", "TYPES", "ENDPOINTS"],
            vec!["kube-admin", "-", "kube-admin.x", "Ingress,Egress", "-"],
            vec!["default", "10", "members", "Ingress,Egress", "2"],
            vec!["default", "20", "web-in", "Ingress", "1"],
            vec!["default", "-", "all", "default", "Ingress,Egress", "2"],
            vec!["default", "-", "none", "other", "Ingress,Egress", "0"],
        ]
    );
    assert!(desk.done("policy show --detailed").contains("app == 'web'"));
    let json = desk.json("policy show");
    assert_eq!((&json[0]["policy"]["endpoints"], &json[2]["policy"]["endpoints"]), (&Value::Null, &json!(1)));

    put(&mut desk, "globalnetworkpolicies/bad", json!({"selector": "app ="})).await;
    put(&mut desk, "globalnetworkpolicies/lost.x", json!({"tier": "lost"})).await;
    desk.world.put(&format!("{RESOURCES}/tiers/broken"), "{").await;
    let said = desk.run("policy show");
    assert_eq!((said.code, said.stdout.lines().count()), (0, 7), "{said:?}");
    for part in ["globalnetworkpolicies/bad is damaged", "tiers/broken is damaged", "no tier 'lost'"] {
        assert!(said.stderr.contains(part), "{part}: {said:?}");
    }
}
