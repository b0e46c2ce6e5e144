//! What `template` proposes, case by case.
