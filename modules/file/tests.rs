//! What `file` proposes, case by case.
