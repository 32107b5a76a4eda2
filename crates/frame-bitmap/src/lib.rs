//! See the README of the workspace.
#![no_std]
