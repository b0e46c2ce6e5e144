//! Playbooks as their authors meet them: what is planned, in which order, and what is said about mistakes.
