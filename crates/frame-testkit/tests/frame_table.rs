//! `FrameTable` and `FrameStack` against a model: what a tree of tables owns, and that each frame is freed once. The
//! HAL panics when a freed table is walked.

use std::collections::BTreeMap;

use frame_core::{FrameLayout, FrameStack, FrameTable, PhysFrame, PhysFrames, TableMut, TableRef};
use frame_testkit::{Rng, TestHal, test_hal};

test_hal! { struct Hal }

/// What a word is.
#[derive(Debug, PartialEq)]
enum Word {
    Plain(u64),
    Table(Model),
    Run(usize),
}

/// A table: the words that are not 0.
#[derive(Debug, Default, PartialEq)]
struct Model(BTreeMap<usize, Word>);

impl Model {
    /// Frames that the table owns, its own among them.
    fn frames(&self) -> usize {
        let words = self.0.values().map(|word| match word {
            Word::Plain(_) => 0,
            Word::Table(table) => table.frames(),
            Word::Run(count) => *count,
        });
        1 + words.sum::<usize>()
    }

    /// Reads a tree.
    fn of(table: TableRef<'_, Hal>) -> Self {
        let word = |i| match (table.child(i), table.run(i), table.word(i)) {
            (Some(child), None, _) => Some(Word::Table(Self::of(child))),
            (None, Some(run), _) => {
                assert_eq!(table.run_words(i).unwrap().len(), run.count() * 512);
                Some(Word::Run(run.count()))
            }
            (None, None, word) => (word != 0).then_some(Word::Plain(word)),
            both => panic!("word {i} owns a table and a run: {both:?}"),
        };
        Self((0..512).filter_map(|i| Some((i, word(i)?))).collect())
    }
}

/// Changes a table somewhere in the tree, and the model alike. Trees that are taken out, and those to be put in, lie in
/// `loose`.
fn change(
    mut table: TableMut<'_, Hal>,
    model: &mut Model,
    rng: &mut Rng,
    loose: &mut Vec<(FrameTable<Hal>, Model)>,
) {
    let i = rng.below(6) * 100; // few words, so that they meet
    if rng.chance(2, 3) {
        match (table.into_child(i), model.0.get_mut(&i)) {
            (Ok(child), Some(Word::Table(model))) => return change(child, model, rng, loose),
            (Err(same), None | Some(Word::Plain(_) | Word::Run(_))) => table = same,
            (child, word) => panic!("{:?} where {word:?} is right", child.is_ok()),
        }
    }
    let owned = matches!(model.0.get(&i), Some(Word::Table(_) | Word::Run(_)));
    match rng.below(6) {
        0 | 1 => {
            let (new, new_model) = match rng.take(loose) {
                Some(loose) => loose,
                None => match FrameTable::new(0) {
                    Ok(table) => (table, Model::default()),
                    Err(_) => return,
                },
            };
            match table.link(i, new, rng.next_u64()) {
                Ok(_) => {
                    assert!(!owned);
                    model.0.insert(i, Word::Table(new_model));
                }
                Err(new) => {
                    assert!(owned, "a plain word takes a table");
                    loose.push((new, new_model));
                }
            }
        }
        2 => {
            let word = rng.next_u64() & 0xfff & !1;
            let right = match model.0.get(&i) {
                Some(Word::Table(_)) => model.0.remove(&i),
                _ => None,
            };
            match (table.unlink(i, word), right) {
                (Some(out), Some(Word::Table(out_model))) => {
                    assert_eq!(Model::of(out.words()), out_model);
                    if rng.chance(1, 2) {
                        loose.push((out, out_model));
                    }
                    if word != 0 {
                        model.0.insert(i, Word::Plain(word));
                    }
                }
                (None, None) => {}
                (out, right) => panic!("{out:?} where {right:?} is right"),
            }
        }
        3 => {
            let count = [1, 512, 2][rng.below(3)];
            let Ok(run) = PhysFrames::alloc(FrameLayout::contiguous(count).unwrap()) else { return };
            match table.own_run(i, run, rng.next_u64()) {
                Ok(_) => {
                    assert!(!owned && count != 2);
                    model.0.insert(i, Word::Run(count));
                }
                Err(run) => assert!((owned || count == 2) && run.count() == count),
            }
        }
        4 => {
            let right = match model.0.get(&i) {
                Some(Word::Run(count)) => Some(*count),
                _ => None,
            };
            let run = table.disown_run(i, 0);
            assert_eq!(run.as_ref().map(PhysFrames::count), right);
            if right.is_some() {
                model.0.remove(&i);
            }
        }
        _ => {
            // Bits 55:52 mark an owner: no plain word may have one.
            let word = rng.next_u64() & if rng.chance(1, 2) { !(0xf << 52) } else { u64::MAX };
            let refused = owned || word >> 52 & 0xf != 0;
            assert_eq!(table.set(i, word).is_err(), refused);
            if !refused {
                model.0.insert(i, Word::Plain(word));
            }
        }
    }
}

#[test]
fn a_tree_of_tables_owns_what_the_model_says() {
    for seed in 0..8 {
        let mut rng = Rng::new(Rng::seed_or(500) + seed);
        Hal::scope(6000, || {
            let mut root = FrameTable::<Hal>::new(0).unwrap();
            let mut model = Model::default();
            let mut loose = Vec::new();
            for step in 0..600 {
                if rng.chance(1, 10) {
                    // Memory is short now and then.
                    Hal::fail_nth(1);
                }
                change(root.words_mut(), &mut model, &mut rng, &mut loose);
                Hal::fail_never();
                let frames: usize = loose.iter().map(|(_, model)| model.frames()).sum();
                assert_eq!(Hal::owned(), model.frames() + frames, "seed {seed}, step {step}");
                if step % 50 == 0 {
                    assert_eq!(Model::of(root.words()), model, "seed {seed}, step {step}");
                }
            }
            assert_eq!(Model::of(root.words()), model, "seed {seed}");
            assert!(model.frames() > 20, "the tree grew: {}", model.frames());
            drop(loose);
            drop(root);
            assert_eq!(Hal::owned(), 0);
        });
    }
}

#[test]
fn a_table_is_born_without_owners_whatever_its_frame_held() {
    Hal::scope(8, || {
        // The HAL fills frames with 0xa5, which has bit 55 set, and here all bits: it would own what its address bits say.
        let mut frame = PhysFrame::<Hal>::alloc().unwrap();
        frame.fill(0xff);
        const OWNED: u64 = 0xf << 52;
        let table = FrameTable::from_fn(frame, |i| i as u64 | 0xff << 52);
        assert_eq!(table.words().word(511), 511 | 0xff << 52 & !OWNED);
        drop(table);
        drop(FrameTable::<Hal>::new(u64::MAX).unwrap());
        assert_eq!(Hal::owned(), 0);
    });
}

#[test]
fn a_frame_taken_out_of_a_table_is_one_frame() {
    Hal::scope(8, || {
        let table = FrameTable::<Hal>::new(7).unwrap();
        let start = table.start_paddr();
        let frame = table.into_frame();
        assert_eq!((frame.start_paddr(), Hal::owned(), frame.as_bytes()[0]), (start, 1, 7));
    });
}

#[test]
fn a_stack_gives_back_what_it_was_given() {
    Hal::scope(40, || {
        let mut rng = Rng::new(1);
        let mut stack = FrameStack::<Hal>::new();
        let mut order = Vec::new();
        for _ in 0..2000 {
            match rng.below(5) {
                0 | 1 => {
                    if let Ok(frame) = PhysFrame::<Hal>::alloc() {
                        order.push(frame.start_paddr());
                        stack.push(frame);
                    }
                }
                2 | 3 => {
                    let top = stack.pop();
                    assert_eq!(top.as_ref().map(PhysFrame::start_paddr), order.pop());
                }
                _ => {
                    let count = rng.below(6);
                    match FrameStack::<Hal>::alloc(count) {
                        Ok(more) => {
                            assert_eq!(more.len(), count);
                            drop(more);
                        }
                        Err(_) => assert!(Hal::owned() + count > 40),
                    }
                }
            }
            assert_eq!((stack.len(), Hal::owned()), (order.len(), order.len()));
        }
    });
    // A failure part of the way leaks nothing.
    Hal::scope(40, || {
        let allocations = Hal::each_failure(|| drop(FrameStack::<Hal>::alloc(5)));
        assert_eq!(allocations, 5);
    });
}
