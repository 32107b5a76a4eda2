//! `frame-lab peers`, from the outside.

mod common;

use common::*;

#[cfg(not(feature = "peers"))]
#[test]
fn a_build_without_peers_says_how_to_get_them() {
    let dir = Dir::new("no-peers");
    let message = refused(&run(&dir, &["peers", "--quick"]));
    assert!(message.contains("--features peers"), "{message}");
}

#[cfg(feature = "peers")]
#[test]
fn the_figures_are_all_there_and_drawn() {
    let dir = Dir::new("peers");
    let arguments =
        ["peers", "--quick", "--rounds", "2", "--only", "PhysFrame,Depot", "--json", "--picture", "p.svg"];
    let json = json(&run(&dir, &arguments));
    let contenders = json["contenders"].as_array().unwrap();
    let names: Vec<_> = contenders.iter().map(|contender| contender["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["null", "floor", "percpu-tree PhysFrame", "frame-alloc Depot"]);
    let floor = &contenders[1]["times"][0];
    assert_eq!(
        (floor["discipline"].as_str(), floor["to_floor"]["median"].as_f64()),
        (Some("4K pair"), Some(1.0))
    );
    let depot = &contenders[3];
    assert!(depot["version"].as_str().is_some_and(|version| version.starts_with("0.")));
    assert!(depot["times"].as_array().unwrap().iter().any(|time| time["discipline"] == "real trace"));
    assert_eq!(depot["fragmentation"]["points"].as_array().unwrap().len(), 7);
    assert!(json["targets"].as_array().unwrap().iter().any(|target| target["met"].is_boolean()));
    let picture = std::fs::read_to_string(dir.path().join("p.svg")).unwrap();
    assert!(picture.starts_with("<svg") && picture.contains("frame-alloc Depot") && !picture.contains("NaN"));
    let message = refused(&run(&dir, &["peers", "--only", "nobody-at-all"]));
    assert!(message.contains("nobody-at-all") && message.contains("percpu-tree"), "{message}");
}
