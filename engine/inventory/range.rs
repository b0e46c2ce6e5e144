//! Host names as inventories write them: `db[01:20]`, `[a:c].example.com`, `web1:2222`, `[::1]:22`.

/// Most hosts that one pattern may stand for.
const LIMIT: usize = 100_000;

/// Returns the host names that `text` stands for and the port behind them, if any. The error is a fragment.
pub fn expand(text: &str) -> Result<(Vec<String>, Option<u16>), String> {
    let (name, port) = split_port(text)?;
    let mut names = Vec::new();
    expand_into(name, &mut names)?;
    Ok((names, port))
}

/// Cuts a port off a host name. An IPv6 address has a port only in brackets.
pub fn split_port(text: &str) -> Result<(&str, Option<u16>), String> {
    let Some((name, digits)) = text.rsplit_once(':') else { return Ok((text, None)) };
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).filter(|inner| is_ipv6(inner));
    let is_port = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
    if !is_port
        || name.is_empty()
        || name.matches('[').count() != name.matches(']').count()
        || address.is_none() && colon_outside_brackets(name)
    {
        return Ok((text, None));
    }
    let port = digits.parse().map_err(|_| format!("`{digits}` is not a port"))?;
    Ok((address.unwrap_or(name), Some(port)))
}

/// Tells `::1` from `1:9:2`, which is a range with a step.
fn is_ipv6(text: &str) -> bool {
    text.contains("::") || text.matches(':').count() == 7
}

fn colon_outside_brackets(text: &str) -> bool {
    let mut depth = 0_i32;
    text.chars().any(|letter| {
        depth += i32::from(letter == '[') - i32::from(letter == ']');
        letter == ':' && depth == 0
    })
}

fn expand_into(text: &str, names: &mut Vec<String>) -> Result<(), String> {
    let Some(start) = text.find('[') else {
        if names.len() >= LIMIT {
            return Err(format!("stands for more than {LIMIT} hosts"));
        }
        names.push(text.to_owned());
        return Ok(());
    };
    let Some(end) = text[start..].find(']').map(|end| start + end) else {
        return Err(format!("`{}` has no closing bracket", &text[start..]));
    };
    let range = &text[start..=end];
    for item in sequence(&text[start + 1..end]).map_err(|why| format!("the host range `{range}` {why}"))? {
        expand_into(&format!("{}{item}{}", &text[..start], &text[end + 1..]), names)?;
    }
    Ok(())
}

/// Returns the items of `begin:end` or `begin:end:step`.
fn sequence(range: &str) -> Result<Vec<String>, String> {
    let parts: Vec<_> = range.split(':').collect();
    let (begin, end, step) = match parts.as_slice() {
        [begin, end] => (*begin, *end, "1"),
        [begin, end, step] => (*begin, *end, *step),
        _ => return Err("has to be `[begin:end]` or `[begin:end:step]`".to_owned()),
    };
    let begin = if begin.is_empty() { "0" } else { begin };
    let step: usize = step.parse().ok().filter(|step| *step > 0).ok_or("has a step that is not a positive number")?;
    if end.is_empty() {
        return Err("has no end".to_owned());
    }
    let letter = |text: &str| match text.as_bytes() {
        [byte] if byte.is_ascii_lowercase() => Some(byte - b'a'),
        [byte] if byte.is_ascii_uppercase() => Some(byte - b'A' + 26),
        _ => None,
    };
    if let (Some(first), Some(last)) = (letter(begin), letter(end)) {
        let spelled = |index: u8| char::from(if index < 26 { b'a' + index } else { b'A' + index - 26 }).to_string();
        return ordered(first <= last, || (first..=last).step_by(step).map(spelled).collect());
    }
    let number = |text: &str| text.parse::<u32>().map_err(|_| format!("goes from or to `{text}`, which is neither a number nor a letter"));
    let (first, last) = (number(begin)?, number(end)?);
    let padded = begin.len() > 1 && begin.starts_with('0');
    if padded && begin.len() != end.len() {
        return Err("begins with a zero, so that begin and end need the same number of digits".to_owned());
    }
    if last.saturating_sub(first) as usize / step >= LIMIT {
        return Err(format!("stands for more than {LIMIT} hosts"));
    }
    let width = if padded { begin.len() } else { 0 };
    ordered(first <= last, || (first..=last).step_by(step).map(|number| format!("{number:0width$}")).collect())
}

fn ordered(ordered: bool, items: impl FnOnce() -> Vec<String>) -> Result<Vec<String>, String> {
    if ordered { Ok(items()) } else { Err("ends before it begins".to_owned()) }
}

#[cfg(test)]
mod tests {
    use super::expand;

    fn names(text: &str) -> String {
        match expand(text) {
            Ok((names, None)) => names.join(" "),
            Ok((names, Some(port))) => format!("{} port {port}", names.join(" ")),
            Err(why) => why,
        }
    }

    #[test]
    fn ranges_expand() {
        for (text, expected) in [
            ("web", "web"),
            ("web[1:3]", "web1 web2 web3"),
            ("web[01:03].x", "web01.x web02.x web03.x"),
            ("web[08:11]", "web08 web09 web10 web11"),
            ("[a:c]db[1:2]", "adb1 adb2 bdb1 bdb2 cdb1 cdb2"),
            ("n[1:9:4]", "n1 n5 n9"),
            ("n[:2]", "n0 n1 n2"),
            ("[y:B]", "y z A B"),
            ("web1:2222", "web1 port 2222"),
            ("web[1:2]:2222", "web1 web2 port 2222"),
            ("[a:b]:22", "a b port 22"),
            ("[1:9:4]:22", "1 5 9 port 22"),
            ("[::1]:22", "::1 port 22"),
            ("fe80::1", "fe80::1"),
            ("10.4.7.21:22", "10.4.7.21 port 22"),
            ("n[3:1]", "the host range `[3:1]` ends before it begins"),
            ("n[01:100]", "the host range `[01:100]` begins with a zero, so that begin and end need the same number of digits"),
            ("n[1:2:0]", "the host range `[1:2:0]` has a step that is not a positive number"),
            ("n[1:]", "the host range `[1:]` has no end"),
            ("n[1]", "the host range `[1]` has to be `[begin:end]` or `[begin:end:step]`"),
            ("n[1:2", "`[1:2` has no closing bracket"),
            ("n[1:99999999]", "the host range `[1:99999999]` stands for more than 100000 hosts"),
            ("n[1:1000][1:1000]", "stands for more than 100000 hosts"),
            ("n:99999", "`99999` is not a port"),
        ] {
            assert_eq!(names(text), expected, "{text}");
        }
    }
}
