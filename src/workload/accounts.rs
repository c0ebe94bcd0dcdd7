//! Users and groups from /etc/passwd and /etc/group themselves: the C library would load its name
//! services from disk, which a static program must not.

use std::fs;

const PASSWD: &str = "/etc/passwd";
const GROUP: &str = "/etc/group";

/// Whom to become.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Account {
    pub uid: u32,
    pub gid: u32,
    /// All groups, `gid` among them.
    pub groups: Vec<u32>,
}

/// `name`, `uid`, and either with `:group` (a name or a gid). A group that is named is the only one;
/// otherwise there are the user's own and all that list the user. The error is a sentence.
pub(super) fn find(user: &str) -> Result<Account, String> {
    let read = |path| fs::read_to_string(path).map_err(|error| format!("cannot read {path}: {error}"));
    lookup(user, &read(PASSWD)?, &read(GROUP)?)
}

fn lookup(user: &str, passwd: &str, group: &str) -> Result<Account, String> {
    let (name, wanted_group) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    // A number is a name first, as it is to chown and Docker.
    let number = number_of(name);
    let users = || {
        lines(passwd).filter_map(|fields| {
            Some((*fields.first()?, number_of(fields.get(2)?)?, number_of(fields.get(3)?)?))
        })
    };
    let known = users().find(|user| user.0 == name).or_else(|| users().find(|user| Some(user.1) == number));
    let uid =
        known.map(|user| user.1).or(number).ok_or_else(|| format!("this agent has no user {name:?}"))?;
    if let Some(wanted) = wanted_group {
        let gid = groups(group).find(|group| group.0 == wanted).map(|group| group.1).or(number_of(wanted));
        let gid = gid.ok_or_else(|| format!("this agent has no group {wanted:?}"))?;
        return Ok(Account { uid, gid, groups: vec![gid] });
    }
    let Some((name, _, gid)) = known else {
        return Err(format!(
            "the user {name} is not in {PASSWD} of this agent; name a group too, as in {name}:{name}"
        ));
    };
    let mut all = vec![gid];
    all.extend(
        groups(group)
            .filter(|group| group.1 != gid && group.2.split(',').any(|member| member == name))
            .map(|group| group.1),
    );
    Ok(Account { uid, gid, groups: all })
}

/// A uid or gid in digits. The highest is none: to the kernel it means "leave it as it is", which is root.
fn number_of(text: &str) -> Option<u32> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|number| digits && *number != u32::MAX)
}

/// Name, gid and members of each group.
fn groups(text: &str) -> impl Iterator<Item = (&str, u32, &str)> {
    lines(text).filter_map(|fields| Some((*fields.first()?, number_of(fields.get(2)?)?, *fields.get(3)?)))
}

fn lines(text: &str) -> impl Iterator<Item = Vec<&str>> {
    text.lines().map(|line| line.split(':').collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nbroken\nweb:x:33:44::/:/bin/false\n700:x:7:8::/:\n";
    const GROUP: &str = "root:x:0:\nweb:x:44:web\nadm:x:4:root,web\nlogs:x:9:webby\n";

    fn found(user: &str) -> Account {
        lookup(user, PASSWD, GROUP).unwrap()
    }

    #[test]
    fn users_by_name_and_number() {
        let account = |uid, gid, groups: &[u32]| Account { uid, gid, groups: groups.to_vec() };
        assert_eq!(found("web"), account(33, 44, &[44, 4]));
        assert_eq!(found("33"), found("web"));
        assert_eq!(found("700"), account(7, 8, &[8]), "a name that looks like a number");
        assert_eq!(found("web:adm"), account(33, 4, &[4]));
        assert_eq!(found("1234:adm"), account(1234, 4, &[4]));
        assert_eq!(found("1234:5678"), account(1234, 5678, &[5678]));
    }

    proptest::proptest! {
        #[test]
        fn nobody_becomes_root_by_a_name_that_is_not_roots(
            user in "(?s)[a-z0-9:+ -]{0,12}|.{0,8}", passwd in "([a-z:0-9]{0,20}\n){0,4}", group in "([a-z:0-9,]{0,20}\n){0,4}",
        ) {
            let _ = lookup(&user, &passwd, &group);
            if let Ok(account) = lookup(&user, PASSWD, GROUP) {
                let name = user.split(':').next().unwrap();
                let is_root = name == "root" || name.parse::<u32>() == Ok(0);
                proptest::prop_assert_eq!(account.uid == 0, is_root);
            }
        }
    }

    #[test]
    fn unknown_users_are_refused() {
        let told = |user: &str| lookup(user, PASSWD, GROUP).unwrap_err();
        assert!(told("nobody-here").contains("no user \"nobody-here\""));
        assert!(told("").contains("no user"));
        assert!(told("-1").contains("no user"));
        assert!(told("broken").contains("no user"));
        assert!(told("1234").contains("1234:1234"));
        for same in ["4294967295:5", "4294967295", "5:4294967295", "+5:5", "5:+5"] {
            assert!(
                told(same).contains("this agent has no"),
                "{same}: the process would keep its user or group"
            );
        }
        assert!(told("web:nogroup").contains("no group \"nogroup\""));
        assert!(told("a\nb").contains(r"a\nb"));
    }
}
