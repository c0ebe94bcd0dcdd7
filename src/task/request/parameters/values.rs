//! Parses values as the docker CLI does. What the CLI would misread (a number with a hexadecimal exponent, an overflow)
//! is refused.

/// Go's ParseBool.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err("is neither true nor false".into()),
    }
}

/// A whole number; `0x10`, `0o17`, `017` and `0b1` count in other bases.
pub(super) fn integer(text: &str) -> Result<i64, String> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    let lower = digits.to_ascii_lowercase();
    let (radix, digits) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    if digits.starts_with(['+', '-']) {
        return Err("is not a whole number".into());
    }
    let sign = if text.starts_with('-') { "-" } else { "" };
    i64::from_str_radix(&format!("{sign}{digits}"), radix).map_err(|_| "is not a whole number".into())
}

/// Bytes: `512m`, `1.5 GB`, `1073741824`; each step is 1024.
pub(super) fn size(text: &str) -> Result<i64, String> {
    const WRONG: &str = "is not a size such as 512m";
    let end = text.rfind(|c: char| c.is_ascii_digit() || c == '.' || c == ' ').ok_or(WRONG)?;
    let (number, unit) = text.split_at(end + 1);
    let number = number.strip_suffix(' ').unwrap_or(number);
    let unit = unit.to_ascii_lowercase();
    let number: f64 = number.parse().map_err(|_| WRONG)?;
    let power = match unit.strip_suffix("ib").or(unit.strip_suffix('b')).unwrap_or(&unit) {
        "" if unit == "ib" => return Err(WRONG.into()),
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(WRONG.into()),
    };
    let bytes = number * 1024_f64.powi(power);
    // Below 2^63, where the conversion is exact.
    match (0.0..9.2e18).contains(&bytes) {
        true => Ok(bytes as i64),
        false => Err(WRONG.into()),
    }
}

/// Nanoseconds: `30s`, `1m30s`, `1.5h`; a bare `0` needs no unit.
pub(super) fn duration(text: &str) -> Result<i64, String> {
    const WRONG: &str = "is not a time such as 1m30s";
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(WRONG.into());
    }
    let mut total = 0.0;
    while !rest.is_empty() {
        let (number, tail) =
            rest.split_at(rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or(WRONG)?);
        let (unit, tail) =
            tail.split_at(tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len()));
        let nanoseconds = match unit {
            "ns" => 1.0,
            "us" | "µs" | "μs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(WRONG.into()),
        };
        total += number.parse::<f64>().map_err(|_| WRONG)? * nanoseconds;
        rest = tail;
    }
    match total < 9.2e18 {
        true => Ok(if negative { -total as i64 } else { total as i64 }),
        false => Err(WRONG.into()),
    }
}

/// Not negative.
pub(super) fn span(text: &str) -> Result<i64, String> {
    match duration(text)? {
        span if span >= 0 => Ok(span),
        _ => Err("is negative".into()),
    }
}

/// Billionths of a CPU, of a decimal number.
pub(super) fn nano_cpus(text: &str) -> Result<i64, String> {
    const WRONG: &str = "is not a number of CPUs such as 1.5";
    let (whole, part) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(whole) || !digits(part) || (whole.is_empty() && part.is_empty()) {
        return Err(WRONG.into());
    }
    let part = part.trim_end_matches('0');
    if part.len() > 9 {
        return Err("is more precise than a billionth".into());
    }
    format!("{whole}{part:0<9}").parse().map_err(|_| WRONG.into())
}

/// The fields of one line of comma-separated values; a field with a comma stands in quotes.
pub(super) fn fields(text: &str) -> Result<Vec<String>, String> {
    const WRONG: &str = "is not a list of fields with commas between them";
    let mut reader = csv::ReaderBuilder::new().has_headers(false).from_reader(text.as_bytes());
    let record = reader.records().next().ok_or(WRONG)?.map_err(|_| WRONG)?;
    Ok(record.iter().map(str::to_owned).collect())
}

/// `80` or `8000-8010`.
pub(super) fn ports(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let port =
        |text: &str| text.parse().map_err(|_| "has a port that is not a number up to 65535".to_owned());
    match (port(first)?, port(last)?) {
        (first, last) if first <= last => Ok((first, last)),
        _ => Err("has a range of ports that ends before it begins".into()),
    }
}

/// `tcp`, `udp` or `sctp` behind a slash, if any.
pub(super) fn protocol(text: &str) -> Result<(&str, String), String> {
    let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match protocol.to_ascii_lowercase() {
        protocol if protocol.is_empty() => Ok((ports, "tcp".into())),
        protocol if matches!(protocol.as_str(), "tcp" | "udp" | "sctp") => Ok((ports, protocol)),
        _ => Err("has a protocol that is not tcp, udp or sctp".into()),
    }
}

/// `key=value`; without `=` the value is empty.
pub(super) fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=').unwrap_or((text, "")) {
        ("", _) => Err("has no key".into()),
        (key, value) => Ok((key.to_owned(), value.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table<T: PartialEq + std::fmt::Debug>(
        read: fn(&str) -> Result<T, String>,
        good: &[(&str, T)],
        bad: &[&str],
    ) {
        for (text, expected) in good {
            assert_eq!(read(text).as_ref(), Ok(expected), "{text}");
        }
        for text in bad {
            assert!(read(text).is_err(), "{text} is read as {:?}", read(text));
        }
    }

    #[test]
    fn booleans_are_read_as_docker_reads_them() {
        table(
            boolean,
            &[("true", true), ("T", true), ("1", true), ("f", false), ("False", false)],
            &["", "yes"],
        );
    }

    #[test]
    fn integers_are_read_as_docker_reads_them() {
        let good = [("0", 0), ("-1", -1), ("+7", 7), ("0x10", 16), ("010", 8), ("0o17", 15), ("-0b11", -3)];
        table(
            integer,
            &good,
            &["", "-", "1.5", "08", "0x", "1k", "--1", "0x-1", "99999999999999999999", " 1"],
        );
        assert_eq!(integer("-9223372036854775808"), Ok(i64::MIN));
    }

    #[test]
    fn sizes_are_read_as_docker_reads_them() {
        let good = [
            ("0", 0),
            ("512m", 512 << 20),
            ("1.5 GB", 3 << 29),
            ("1KiB", 1024),
            ("1e3", 1000),
            ("3b", 3),
            ("2P", 2 << 50),
            ("7 ", 7),
            (".5k", 512),
        ];
        table(
            size,
            &good,
            &["", "m", "-1m", "1x", "1mm", "1ib", "1bb", "nan1", "1 mb b", "9e30", "1kibb", "8192p"],
        );
    }

    #[test]
    fn durations_are_read_as_docker_reads_them() {
        let good = [
            ("0", 0),
            ("30s", 30_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1.5ms", 1_500_000),
            ("-1µs", -1000),
            (".5h", 1_800_000_000_000),
        ];
        table(duration, &good, &["", "30", "s", "1d", "1 s", "-", "1s1", "..s", "1e3s", "9999999h", "1µ"]);
        assert!(span("-1s").is_err() && span("1s").is_ok());
    }

    #[test]
    fn numbers_of_cpus_are_read_as_docker_reads_them() {
        let good = [("1", 1_000_000_000), ("0.5", 500_000_000), (".000000001", 1), ("2.50", 2_500_000_000)];
        table(nano_cpus, &good, &["", ".", "-1", "1e3", "0.0000000001", "1.5.5", "99999999999999"]);
    }

    #[test]
    fn lists_of_fields_are_split_as_docker_splits_them() {
        let list = |fields: &[&str]| fields.iter().map(|field| (*field).to_owned()).collect::<Vec<_>>();
        table(fields, &[("a,b=c,", list(&["a", "b=c", ""])), (r#"x,"a,b""#, list(&["x", "a,b"]))], &[""]);
    }

    #[test]
    fn ports_and_protocols_are_read_as_docker_reads_them() {
        table(ports, &[("80", (80, 80)), ("1-2", (1, 2))], &["", "2-1", "65536", "1-2-3", "a", "-1", "1-"]);
        assert_eq!(protocol("80/UDP"), Ok(("80", "udp".into())));
        assert_eq!(protocol("80"), Ok(("80", "tcp".into())));
        assert!(protocol("80/icmp").is_err() && protocol("80/tcp/udp").is_err());
    }

    proptest! {
        #[test]
        fn any_value_is_read_or_refused_without_a_panic(text in "(?s).{0,12}|[-+0-9.a-zµ ]{0,12}|[-0-9x]{1,30}[a-z]{0,3}") {
            let _ = (boolean(&text), integer(&text), size(&text), duration(&text), nano_cpus(&text));
            let _ = (fields(&text), ports(&text), protocol(&text), pair(&text));
        }

        #[test]
        fn every_number_is_read_back_as_written(number in any::<i64>()) {
            prop_assert_eq!(integer(&number.to_string()), Ok(number));
            prop_assert_eq!(integer(&format!("{}{:#x}", if number < 0 { "-" } else { "" }, number.unsigned_abs())), Ok(number));
        }
    }
}
