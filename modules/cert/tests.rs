//! x
pub(super) fn examples() -> Vec<super::Example> {
    vec![]
}
