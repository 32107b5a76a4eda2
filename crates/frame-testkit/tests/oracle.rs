//! The oracle passes its own suite: a case that it fails is a wrong case.

use frame_testkit::{OracleBackend, conformance_suite};

conformance_suite!(OracleBackend);
