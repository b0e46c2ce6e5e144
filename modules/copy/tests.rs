//! What `copy` proposes, case by case.
