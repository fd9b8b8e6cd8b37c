use super::*;

const NAME: &str = "state-0-0.safetensors";

fn identity(seed: u64) -> Identity {
    Identity::of_test(seed)
}

fn put(folder: &Path, content: &[u8]) -> Result<Vec<Written>, String> {
    let path = folder.join(NAME);
    fs::write(&path, content).map_err(|e| e.to_string())?;
    Ok(vec![Written { file: NAME.into(), bytes: content.len() as u64, crc32: crc32fast::hash(content) }])
}

fn steps(store: &Store) -> Vec<u64> {
    store.all().into_iter().map(|(step, _)| step).collect()
}

fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

fn read(store: &Store, step: u64) -> Result<u64, Unusable> {
    let (_, path) = store.all().into_iter().find(|(s, _)| *s == step).unwrap();
    Store::read::<u64>(&path, &identity(1)).map(|m| m.notes)
}

#[test]
fn the_last_two_are_kept_and_each_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store { folder: folder.path().join("deep/launch") };
    store.prepare().unwrap();
    for step in [7, 100, 2000, 30_000] {
        let bytes = store.make(step, (&identity(1), &(step + 1)), |part| put(part, b"numbers")).unwrap();
        assert!(bytes > 100);
        assert_eq!(read(&store, step), Ok(step + 1));
    }
    assert_eq!((steps(&store), entries(&store.folder)), (vec![30_000, 2000], 2));
}

#[test]
fn a_full_disk_in_the_middle_leaves_the_one_before_and_no_litter() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store { folder: folder.path().into() };
    store.make(5, (&identity(1), &1u64), |part| put(part, b"numbers")).unwrap();
    let full = store.make(10, (&identity(1), &2u64), |part| {
        put(part, b"num")?;
        Err(format!("{}: no space", part.join(NAME).display()))
    });
    assert!(full.unwrap_err().ends_with("state-0-0.safetensors: no space"));
    assert_eq!((steps(&store), read(&store, 5), entries(&store.folder)), (vec![5], Ok(1), 1));
    // A process that ended in the middle leaves a part, which the next one clears away.
    let part = store.folder.join("step-000000010.part");
    fs::create_dir(&part).unwrap();
    put(&part, b"num").unwrap();
    assert_eq!(steps(&store), [5]);
    store.prepare().unwrap();
    assert!(!part.exists());
    store.make(10, (&identity(1), &2u64), |part| put(part, b"numbers")).unwrap();
    assert_eq!(read(&store, 10), Ok(2));
}

#[test]
fn what_is_cut_short_or_changed_is_damaged_and_another_seed_is_foreign() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store { folder: folder.path().into() };
    store.make(5, (&identity(1), &1u64), |part| put(part, b"numbers")).unwrap();
    let (_, path) = store.all().remove(0);
    let why = || match Store::read::<u64>(&path, &identity(1)) {
        Err(Unusable::Damaged(why)) => why,
        other => panic!("{other:?}"),
    };
    let file = path.join(NAME);
    fs::write(&file, b"number").unwrap();
    assert_eq!(why(), "state-0-0.safetensors: expected 7 bytes, found 6");
    fs::write(&file, b"nambers").unwrap();
    assert_eq!(why(), "state-0-0.safetensors: its content is not what was written");
    fs::remove_file(&file).unwrap();
    assert!(why().starts_with("state-0-0.safetensors: "));
    fs::write(&file, b"numbers").unwrap();
    let foreign = Store::read::<u64>(&path, &identity(2));
    assert_eq!(foreign, Err(Unusable::Foreign("seed: expected 2, found 1".into())));
    let manifest = path.join(MANIFEST);
    let whole = fs::read(&manifest).unwrap();
    fs::write(&manifest, &whole[..whole.len() / 2]).unwrap();
    assert!(why().contains("manifest"));
    fs::remove_file(&manifest).unwrap();
    assert!(why().contains("manifest"));
    Store::put_aside(&path);
    assert!(steps(&store).is_empty());
    store.make(5, (&identity(1), &1u64), |part| put(part, b"numbers")).unwrap();
    assert_eq!(read(&store, 5), Ok(1), "where the damaged one was");
}

#[test]
fn a_folder_that_cannot_be_is_named() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("file"), "").unwrap();
    let store = Store { folder: folder.path().join("file/launch") };
    assert!(store.prepare().unwrap_err().contains("file/launch: "));
    let made = store.make(5, (&identity(1), &1u64), |part| put(part, b"numbers"));
    assert!(made.unwrap_err().contains("file/launch/step-000000005.part: "));
    assert!(store.all().is_empty());
}
