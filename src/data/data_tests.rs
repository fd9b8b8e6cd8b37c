//! From files to batches.

use super::*;
use std::fs;
use tempfile::TempDir;

/// Words that are drawn, as lines.
fn words(seed: u64, count: usize) -> String {
    const WORDS: [&str; 12] =
        ["the", "a", "token", "costs", "what", "it", "takes", "to", "make", "money", "überall", "again"];
    let mut random = crate::stats::random::SplitMix64::new(seed);
    let drawn: Vec<&str> = (0..count).map(|_| WORDS[random.below(WORDS.len())]).collect();
    drawn.chunks(9).map(|line| line.join(" ") + ".\n").collect()
}

fn source(patterns: &[&str], tokenizer: Tokenizer) -> Source {
    Source::new(What::Text(Files::new(patterns.iter().map(|p| p.to_string()).collect())), tokenizer)
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn ready(source: &Source, at: &TempDir) -> Prepared {
    prepare(&source.seal(at.path()).unwrap(), None, &mut |_| {}).unwrap()
}

fn wrong(source: &Source, at: &TempDir) -> String {
    let sealed = source.seal(at.path());
    sealed.and_then(|s| prepare(&s, None, &mut |_| {}).map(drop)).unwrap_err().to_string()
}

fn all(prepared: &Prepared, split: Split) -> Vec<u32> {
    let stream = if split == Split::Train { &prepared.train } else { &prepared.validation };
    let mut tokens = Vec::new();
    stream.each(0, stream.length(), |t| tokens.push(t));
    tokens
}

#[test]
fn bytes_of_a_text_come_back_and_its_end_is_for_validation() {
    let text = words(1, 2000);
    let at = folder(&[("a.txt", &text)]);
    let p = ready(&source(&["a.txt"], Tokenizer::Bytes), &at);
    let (train, validation) = (all(&p, Split::Train), all(&p, Split::Validation));
    assert_eq!((train.last(), validation.last(), p.facts().end_of_text), (Some(&0), Some(&0), Some(0)));
    let back: Vec<u8> = train.iter().chain(&validation).filter(|t| **t != 0).map(|t| *t as u8).collect();
    assert_eq!(String::from_utf8(back).unwrap(), text);
    let f = p.facts();
    assert_eq!((f.train.bytes + f.validation.bytes, f.tokens()), (text.len() as u64, text.len() as u64 + 2));
    assert!((f.validation.bytes as f64 / text.len() as f64 - 0.1).abs() < 0.01, "{f:?}");
    assert_eq!((f.split.as_str(), p.vocabulary()), ("the last tenth of the text", 256));
    assert!(f.bytes_a_token().is_some_and(|b| (0.99..1.0).contains(&b)));
}

#[test]
fn every_kind_of_file_gives_the_same_documents() {
    let texts: Vec<String> = (0..40).map(|i| words(i, 50)).collect();
    let marked = texts.join("<|endoftext|>\n");
    let lines: String = texts.iter().map(|t| serde_json::json!({ "id": 1, "body": t }).to_string() + "\n\n").collect();
    let at = folder(&[("marked.md", &marked), ("lines.jsonl", &lines)]);
    for (i, t) in texts.iter().enumerate() {
        fs::create_dir_all(at.path().join("deep/er")).unwrap();
        fs::write(at.path().join(format!("deep/er/{i:03}.txt")), t).unwrap();
    }
    let tokens = |s: &Source| [Split::Train, Split::Validation].map(|split| all(&ready(s, &at), split));
    let marked = tokens(&source(&["marked.md"], Tokenizer::Bytes));
    let mut lines = source(&["*.jsonl"], Tokenizer::Bytes);
    if let What::Text(files) = &mut lines.what {
        files.field = "body".into();
    }
    assert_eq!(tokens(&lines), marked);
    // The second pattern names nothing new.
    assert_eq!(tokens(&source(&["deep/**/*.txt", "deep/er/00*.txt"], Tokenizer::Bytes)), marked);
    let p = ready(&source(&["marked.md"], Tokenizer::Bytes), &at);
    assert_eq!((p.facts().train.documents, p.facts().validation.documents), (36, 4));
}

#[test]
fn byte_pairs_are_trained_the_same_each_time_and_stand_for_the_text() {
    let at = folder(&[("a.txt", &words(1, 20_000))]);
    let made: Vec<Vec<u32>> = (0..3)
        .map(|_| {
            let p = ready(&source(&["a.txt"], Tokenizer::Bpe(300)), &at);
            assert_eq!((p.vocabulary(), p.facts().end_of_text), (300, Some(0)));
            assert!(p.facts().bytes_a_token().unwrap() > 3.0 && p.facts().tokenizer_seconds > 0.0);
            all(&p, Split::Train)
        })
        .collect();
    assert!(made[0] == made[1] && made[1] == made[2]);
    assert!(made[0].iter().any(|t| *t > 290) && made[0].iter().all(|t| *t < 300));
    let said = wrong(&source(&["a.txt"], Tokenizer::Bpe(5000)), &at);
    assert!(said.contains("data.tokenizer.bpe: expected 5000 tokens, found that the text gives "), "{said}");
    let said = wrong(&source(&["a.txt"], Tokenizer::Bpe(256)), &at);
    assert!(said.contains("expected at least 257 tokens"), "{said}");
}

#[test]
fn a_tokenizer_of_hugging_faces_is_read_and_cuts_no_text_short() {
    let json = r#"{"version": "1.0", "truncation": {"direction": "Right", "max_length": 4, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0,
        "pad_token": "x"}, "added_tokens": [{"id": 70000, "content": "</s>", "single_word": false, "lstrip": false, "rstrip":
        false, "normalized": false, "special": true}], "normalizer": null, "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": null, "decoder": null, "model": {"type": "WordLevel", "vocab": {"x": 0, "y": 1, "</s>": 70000},
        "unk_token": "x"}}"#;
    let at = folder(&[("t.json", json), ("a.txt", &"x y ".repeat(100))]);
    let s = source(&["a.txt"], Tokenizer::File("t.json".into()));
    let p = ready(&s, &at);
    assert_eq!((p.vocabulary(), p.facts().end_of_text), (70_001, Some(70_000)));
    let tokens = all(&p, Split::Train);
    assert_eq!((tokens.len(), &tokens[..3], tokens.last()), (181, &[0, 1, 0][..], Some(&70_000)));
    assert_eq!(s.seal(at.path()).unwrap().vocabulary().unwrap(), 70_001);
    fs::write(at.path().join("t.json"), "{}").unwrap();
    assert!(wrong(&s, &at).contains("t.json: expected a tokenizer.json of Hugging Face's"));
}

#[test]
fn long_texts_are_cut_between_words_without_another_token() {
    let text = words(4, 120_000).replace(".\n", " ");
    assert!(text.len() > 600_000);
    let cut: Vec<&str> = tokenizer::pieces(&text).collect();
    assert!(cut.len() > 2 && cut.concat() == text && cut[1..].iter().all(|p| p.starts_with(' ')), "{}", cut.len());
    let encoder = tokenizer::Encoder::train(280, std::iter::once(Ok(words(5, 3000)))).unwrap();
    let whole = encoder.encode(&[&text]).unwrap().concat();
    assert_eq!(encoder.encode(&cut).unwrap().concat(), whole);
    // Without blanks, between characters.
    let umlauts = "ä".repeat(400_000);
    assert_eq!(tokenizer::pieces(&umlauts).collect::<String>(), umlauts);
}

#[test]
fn tokens_are_kept_by_content_and_damage_is_mended_with_a_word() {
    let text = words(1, 3000);
    let (at, cache) = (folder(&[("a.txt", &text)]), tempfile::tempdir().unwrap());
    let sealed = source(&["a.txt"], Tokenizer::Bytes).seal(at.path()).unwrap();
    let get = |s: &Source| {
        let mut said = Vec::new();
        let mut note = |s: Said| {
            if let Said::Warning(w) = s {
                said.push(w.to_string());
            }
        };
        let p = prepare(s, Some(cache.path()), &mut note).unwrap();
        (all(&p, Split::Train), p.facts().cached, said)
    };
    let (tokens, cached, said) = get(&sealed);
    assert!(!cached && said.is_empty());
    assert_eq!(get(&sealed), (tokens.clone(), true, vec![]));
    let file = fs::read_dir(cache.path()).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&file).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&file, bytes).unwrap();
    let (again, cached, said) = get(&sealed);
    assert!(again == tokens && !cached && said[0].ends_with(".tokens is damaged; it is made again"), "{said:?}");
    assert!(get(&sealed).1);
    // A copy elsewhere has the same content, another text another one.
    let elsewhere = folder(&[("b.txt", &text), ("c.txt", &words(2, 10))]);
    let copy = source(&["b.txt"], Tokenizer::Bytes).seal(elsewhere.path()).unwrap();
    assert!(get(&copy).1 && copy.identity() == sealed.identity() && copy != sealed);
    assert_ne!(source(&["c.txt"], Tokenizer::Bytes).seal(elsewhere.path()).unwrap().digest, sealed.digest);
    // The share is not in it.
    assert!(get(&Source { share: 0.5, ..sealed.clone() }).1);
}

#[test]
fn without_a_cache_that_can_be_written_it_goes_on_with_a_word() {
    let at = folder(&[("a.txt", &words(1, 3000)), ("file", "")]);
    let sealed = source(&["a.txt"], Tokenizer::Bytes).seal(at.path()).unwrap();
    let mut said = String::new();
    let mut note = |s: Said| said.push_str(&format!("{s:?}"));
    let p = prepare(&sealed, Some(&at.path().join("file/cache")), &mut note).unwrap();
    assert!(p.tokens(Split::Train) > 10_000 && p.facts().kept.is_none());
    assert!(said.contains("it goes on without the cache"), "{said}");
}

#[test]
fn a_file_that_changes_after_it_was_sealed_is_noticed() {
    let at = folder(&[("a.txt", &words(1, 3000))]);
    let sealed = source(&["a.txt"], Tokenizer::Bytes).seal(at.path()).unwrap();
    fs::write(at.path().join("a.txt"), words(2, 3000)).unwrap();
    let said = prepare(&sealed, None, &mut |_| {}).unwrap_err().to_string();
    assert!(
        said.contains(&format!("expected the content {}", sealed.digest)) && said.contains("start again"),
        "{said}"
    );
}

#[test]
fn bad_input_says_where_and_what_to_do() {
    let at = folder(&[
        ("good.jsonl", "{\"text\": \"a\"}\n"),
        ("field.jsonl", "{\"text\": \"a\"}\n\n{\"body\": \"b\", \"id\": 3}\n"),
        ("type.jsonl", "{\"text\": 5}\n"),
        ("none.jsonl", "{\"text\": \"a\"}\nplain\n"),
        ("blank.txt", " \n\n"),
        ("x.json", "[]"),
        ("x.gz", ""),
        ("sub/x.txt", "a"),
        ("odd[1].txt", &words(1, 100)),
        ("zero.txt", "a\nb\0"),
    ]);
    fs::write(at.path().join("bad.txt"), b"one\ntwo \xff three").unwrap();
    let cases = [
        ("*.none", "*.none: expected at least one file, found none of this name"),
        ("sub", "sub: expected files, found a folder; write "),
        ("[x", "expected a path or a pattern of paths"),
        ("bad.txt", "bad.txt:2: expected text in UTF-8, found the byte 0xff at offset 8; convert it"),
        ("zero.txt", "zero.txt:2: expected text in UTF-8, found a zero byte at offset 3"),
        ("field.jsonl", "field.jsonl:3: expected a field `text`, found body, id; name the field"),
        ("type.jsonl", "type.jsonl:1: expected text in `text`, found a number"),
        ("none.jsonl", "none.jsonl:2: expected a JSON object, found what is none"),
        ("blank.txt", "blank.txt: expected text, found nothing but blanks"),
        ("x.json", "found .json; write an object a line and call it .jsonl"),
        ("x.gz", "found .gz; unpack it first"),
    ];
    for (pattern, expected) in cases {
        let said = wrong(&source(&[pattern], Tokenizer::Bytes), &at);
        assert!(said.contains(expected), "{pattern}: {said}");
    }
    assert!(wrong(&source(&[], Tokenizer::Bytes), &at).contains("expected a path"));
    // A name with a pattern's characters in it.
    assert_eq!(ready(&source(&["odd[1].txt"], Tokenizer::Bytes), &at).facts().train.documents, 1);
    for share in [0.0, 1.1, f64::NAN] {
        let bad = Source { share, ..source(&["good.jsonl"], Tokenizer::Bytes) };
        assert!(wrong(&bad, &at).contains("expected a share over 0 and at most 1"));
    }
}

#[test]
fn the_built_in_text_is_about_a_megabyte_of_chapters() {
    let p = prepare(&Source::new(What::Corpus, Tokenizer::Bytes), None, &mut |_| {}).unwrap();
    let f = p.facts();
    assert!((900_000..1_400_000).contains(&(f.train.bytes + f.validation.bytes)), "{f:?}");
    assert_eq!((f.train.documents, f.validation.documents), (77, 8), "{f:?}");
    assert!(f.source.contains("Jane Austen") && p.check(1024).is_ok());
    let text = corpus::text().unwrap();
    assert!(text.contains("It is a truth universally acknowledged"));
    // Nothing of whoever typed it.
    for word in ["gutenberg", "http", "ebook", "transcri", "end of volume", "\r"] {
        assert!(!text.to_lowercase().contains(word), "{word}");
    }
}

#[test]
fn a_synthetic_language_is_drawn_once_and_found_again_to_the_bit() {
    let language = Language { vocabulary: 64, tokens: 20_000, seed: 2 };
    let at = tempfile::tempdir().unwrap();
    let get = |share: f64, cache: Option<&Path>| {
        let source = Source { share, ..Source::new(What::Synthetic(language), Tokenizer::Bytes) };
        let p = prepare(&source, cache, &mut |_| {}).unwrap();
        let f = p.facts().clone();
        ((all(&p, Split::Train), all(&p, Split::Validation), f.entropy, f.train, f.vocabulary), f.cached)
    };
    let ((train, ..), _) = get(1.0, None);
    for share in [1.0, 0.3, 0.9999, 0.00007] {
        let (fresh, cached) = get(share, None);
        assert!(!cached && fresh.0 == train[..(20_000.0 * share) as usize], "{share}");
        assert_eq!(get(share, Some(at.path())), (fresh, share < 1.0), "{share}");
    }
    // Another language is another file.
    let other = Language { seed: 3, ..language };
    let p = prepare(&Source::new(What::Synthetic(other), Tokenizer::Bytes), Some(at.path()), &mut |_| {}).unwrap();
    assert!(!p.facts().cached && all(&p, Split::Train) != train);
    assert_eq!(fs::read_dir(at.path()).unwrap().count(), 2);
}

#[test]
fn a_synthetic_language_has_a_floor_and_needs_no_cache() {
    let language = Language { vocabulary: 64, tokens: 20_000, seed: 2 };
    let mut s = Source::new(What::Synthetic(language), Tokenizer::Bpe(300));
    let p = prepare(&s, None, &mut |_| {}).unwrap();
    assert_eq!((p.vocabulary(), s.vocabulary().unwrap()), (64, 64));
    assert_eq!((p.tokens(Split::Train), p.tokens(Split::Validation)), (20_000, 2000));
    let floor = p.facts().floor(32).unwrap();
    assert!(floor > 1.0 && floor < 64f64.ln(), "{floor}");
    s.share = 0.25;
    let part = prepare(&s, None, &mut |_| {}).unwrap();
    assert_eq!(all(&part, Split::Train), all(&p, Split::Train)[..5000]);
    let back: Source = serde_json::from_str(&serde_json::to_string(&s).unwrap()).unwrap();
    assert_eq!(back, s);
    assert!(
        wrong(&Source::new(What::Synthetic(Language { vocabulary: 1, ..language }), Tokenizer::Bytes), &folder(&[]))
            .contains("expected 16 to 16384")
    );
}
