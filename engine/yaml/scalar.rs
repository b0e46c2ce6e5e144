//! What a plain scalar means: YAML 1.2's core schema, and an error where readers of YAML disagree.

use serde_json::Number;

use super::Value;

/// Returns the value of an unquoted scalar; the error names what is ambiguous and how to write it instead.
pub fn resolve(text: &str) -> Result<Value, Ambiguous> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Ok(Value::Null),
        "true" | "True" | "TRUE" => return Ok(Value::Bool(true)),
        "false" | "False" | "FALSE" => return Ok(Value::Bool(false)),
        _ => {}
    }
    let (sign, digits) = match text.as_bytes() {
        [sign @ (b'+' | b'-'), ..] => (*sign == b'-', &text[1..]),
        _ => (false, text),
    };
    if digits.len() > 1 && digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Ambiguous::LeadingZero);
    }
    if let Some(value) = integer(digits, sign)? {
        return Ok(Value::Number(value));
    }
    if matches!(digits, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN") {
        return Err(Ambiguous::NotFinite);
    }
    if is_fraction(digits) {
        return text.parse().ok().and_then(Number::from_f64).map(Value::Number).ok_or(Ambiguous::TooLarge);
    }
    Ok(Value::String(text.to_owned()))
}

/// Why an unquoted scalar is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ambiguous {
    /// `0644`: octal to some readers, decimal to others.
    LeadingZero,
    /// `.inf`, `.nan`
    NotFinite,
    /// More than 64 bits.
    TooLarge,
}

impl Ambiguous {
    /// Returns what is wrong with `text`.
    pub fn message(self, text: &str) -> String {
        match self {
            Self::LeadingZero => {
                format!("the number `{text}` begins with a zero, which some readers of YAML take as octal and some as decimal")
            }
            Self::NotFinite => format!("`{text}` is not a number that can be worked with"),
            Self::TooLarge => format!("the number `{text}` does not fit into 64 bits"),
        }
    }

    /// Returns how to write it instead.
    pub fn hint(self, text: &str) -> String {
        format!("quote it: \"{text}\"")
    }
}

fn integer(digits: &str, negative: bool) -> Result<Option<Number>, Ambiguous> {
    let (radix, digits) = match digits.get(..2) {
        Some("0x") => (16, &digits[2..]),
        Some("0o") => (8, &digits[2..]),
        _ => (10, digits),
    };
    if digits.is_empty() || !digits.chars().all(|digit| digit.is_digit(radix)) {
        return Ok(None);
    }
    let magnitude = u64::from_str_radix(digits, radix).map_err(|_| Ambiguous::TooLarge)?;
    if negative {
        i64::try_from(-i128::from(magnitude)).map(|value| Some(value.into())).map_err(|_| Ambiguous::TooLarge)
    } else {
        Ok(Some(magnitude.into()))
    }
}

/// Returns whether the text is `1.5`, `.5`, `1.`, `1e3` or the like.
fn is_fraction(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent.strip_prefix(['+', '-']).unwrap_or(exponent))),
        None => (text, None),
    };
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    digits(whole)
        && digits(fraction)
        && whole.len() + fraction.len() > 0
        && exponent.is_none_or(|exponent| !exponent.is_empty() && digits(exponent))
}
