//! The arithmetic against Calico's own records, and its invariants under any order of use.

use proptest::prelude::*;

use super::*;

fn cidr() -> IpNet {
    "10.65.0.48/29".parse().unwrap()
}

fn holder(handle: &str) -> Attribute {
    Attribute {
        handle_id: Some(handle.into()),
        secondary: Some([("node".to_owned(), "host1".to_owned())].into()),
        extra: Extra::new(),
    }
}

fn new() -> Block {
    Block::new(&cidr(), "host1", 1_795_459_939_565_803_068, "2026-08-22T10:11:12Z".into())
}

#[test]
fn a_new_block_is_written_as_go_writes_it() {
    let mut block = new();
    block.affinity_claim_time = None;
    let text = String::from_utf8(crate::calico::model::to_json(&block)).unwrap();
    assert_eq!(
        text,
        r#"{"cidr":"10.65.0.48/29","affinity":"host:host1","allocations":[null,null,null,null,null,null,null,null],"unallocated":[0,1,2,3,4,5,6,7],"attributes":null,"sequenceNumber":1795459939565803068,"sequenceNumberForAllocation":{},"deleted":false}"#
    );
}

#[test]
fn unknown_fields_and_big_numbers_survive() {
    let text = r#"{"cidr":"10.65.0.48/31","affinity":null,"allocations":[0,null],"unallocated":[1],"attributes":[{"handle_id":"a","secondary":{"x":"1"},"releasedAt":"z"}],"sequenceNumber":18446744073709551615,"sequenceNumberForAllocation":{"0":18446744073709551614},"deleted":false,"future":{"big":18446744073709551613}}"#;
    let block = Block::parse(text.as_bytes(), &"10.65.0.48/31".parse().unwrap()).unwrap();
    assert_eq!(String::from_utf8(crate::calico::model::to_json(&block)).unwrap(), text);
}

#[test]
fn broken_records_are_refused() {
    let mut short = new();
    short.allocations.pop();
    let mut index = new();
    index.allocations[0] = Some(0);
    for block in [short, index] {
        assert!(Block::parse(&serde_json::to_vec(&block).unwrap(), &cidr()).is_err());
    }
    assert!(Block::parse(b"not json", &cidr()).is_err());
    assert!(Block::parse(&serde_json::to_vec(&new()).unwrap(), &"10.65.0.48/30".parse().unwrap()).is_err());
}

#[test]
fn a_free_queue_with_wrong_entries_assigns_no_address_twice() {
    let mut block = new();
    block.assign(0, holder("a"));
    block.unallocated = vec![0, 99, 3, 3];
    assert_eq!(block.first_free(&cidr(), |_| true), Some(3));
    block.assign(0, holder("b"));
    assert_eq!(block.holder(0), Some(&holder("a")));
    block.assign(3, holder("b"));
    assert_eq!(block.unallocated, vec![1, 2, 4, 5, 6, 7]);
}

#[test]
fn reserved_addresses_keep_their_place() {
    let mut block = new();
    let reserved: IpNet = "10.65.0.48/30".parse().unwrap();
    assert_eq!(block.first_free(&cidr(), |address| !reserved.contains(address)), Some(4));
    block.assign(4, holder("a"));
    assert_eq!(block.unallocated, vec![0, 1, 2, 3, 5, 6, 7]);
    assert_eq!(block.first_free(&cidr(), |_| false), None);
}

#[test]
fn equal_attributes_are_shared_and_compacted() {
    let mut block = new();
    for (ordinal, handle) in [(0, "a"), (1, "b"), (2, "a"), (3, "c")] {
        block.assign(ordinal, holder(handle));
    }
    assert_eq!(block.attributes().len(), 3);
    assert_eq!(block.release("a"), vec![0, 2]);
    assert_eq!(block.unallocated, vec![4, 5, 6, 7, 0, 2]);
    assert_eq!(block.allocations[..4], [None, Some(0), None, Some(1)]);
    assert_eq!(block.attributes(), [holder("b"), holder("c")]);
    assert_eq!(block.release("a"), Vec::<usize>::new());
    block.release("b");
    block.release("c");
    assert!(block.is_empty());
    assert_eq!(block.attributes, Some(vec![]));
}

#[test]
fn ordinals_and_addresses_convert_into_each_other() {
    let v6: IpNet = "fd00:65::80/122".parse().unwrap();
    for (cidr, n, text) in [(cidr(), 6, "10.65.0.54"), (v6, 63, "fd00:65::bf")] {
        assert_eq!(address(&cidr, n).to_string(), text);
        assert_eq!(ordinal(&cidr, text.parse().unwrap()), Some(n));
    }
    assert_eq!(ordinal(&cidr(), "10.65.0.47".parse().unwrap()), None);
    assert_eq!(ordinal(&cidr(), "10.65.0.56".parse().unwrap()), None);
    assert_eq!(ordinal(&cidr(), "::1".parse().unwrap()), None);
}

proptest! {
    #[test]
    fn any_order_of_assignments_and_releases_keeps_the_block_consistent(steps in prop::collection::vec((any::<bool>(), 0u8..5), 0..80)) {
        let mut block = new();
        for (assign, who) in steps {
            let handle = format!("h{who}");
            match block.first_free(&cidr(), |_| true) {
                Some(ordinal) if assign => {
                    block.assign(ordinal, holder(&handle));
                    prop_assert_eq!(block.holder(ordinal), Some(&holder(&handle)));
                }
                _ => {
                    block.release(&handle);
                    prop_assert!(block.held_by(&handle).is_empty());
                }
            }
            let mut free = block.unallocated.clone();
            free.sort_unstable();
            let expected: Vec<usize> = (0..8).filter(|o| block.allocations[*o].is_none()).collect();
            prop_assert_eq!(free, expected);
            let used: BTreeSet<usize> = block.allocations.iter().copied().flatten().collect();
            prop_assert_eq!(used, (0..block.attributes().len()).collect::<BTreeSet<_>>());
            Block::parse(&serde_json::to_vec(&block).unwrap(), &cidr()).unwrap();
        }
    }
}
