//! `ci/sass.py` finds a wgmma kernel whose softmax has lost its place under the products, in listings planted here.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn ci() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("ci")
}

/// Runs Python, without files of its own in the tree; `None`, having said so, where there is none.
fn python(args: &[&str]) -> Option<Output> {
    let ran = Command::new("python3").args(args).current_dir(ci()).env("PYTHONDONTWRITEBYTECODE", "1").output();
    if ran.is_err() {
        eprintln!("skipped: python3 is not installed");
    }
    ran.ok()
}

/// A kernel as the disassembler prints it, of one instruction a line.
fn kernel(name: &str, code: &[String]) -> String {
    let lines: String = code
        .iter()
        .enumerate()
        .map(|(i, line)| format!("        /*{:04x}*/                   {line} ;\n", 16 * i))
        .collect();
    format!("\t.section\t.text.{name},\"ax\",@progbits\n\t.align\t128\n.text.{name}:\n{lines}")
}

fn repeated(line: &str, times: usize) -> Vec<String> {
    vec![line.to_string(); times]
}

const PRODUCTS: &str = "HGMMA.64x128x16.F32.BF16 R24, gdesc[UR8], R24, gsb0";
const ALL_BUT_ONE: &str = "WARPGROUP.DEPBAR.LE gsb0, 0x1";
const ALL: &str = "WARPGROUP.DEPBAR.LE gsb0, 0x0";

/// A pass of the forward kernel: two groups of products, the waits, and `before` exponentials ahead of the last wait.
fn forward(before: usize, all: usize) -> Vec<String> {
    [
        repeated(PRODUCTS, 2),
        repeated(ALL_BUT_ONE, 1),
        repeated("@!P1 MUFU.EX2 R9, R8", before),
        repeated("WARPSYNC R209", 1),
        repeated(ALL, 1),
        repeated("MUFU.EX2 R9, R8", all - before),
        repeated("@P1 BRA `(.L_x_7)", 1),
    ]
    .concat()
}

/// What `ci/sass.py` says about a listing: its words where it fails.
fn fault(listing: &str) -> Option<Option<String>> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("listing.sass");
    std::fs::write(&path, listing).unwrap();
    let ran = python(&[Path::new("sass.py").to_str().unwrap(), path.to_str().unwrap()])?;
    let said = String::from_utf8_lossy(&ran.stdout).into_owned();
    assert!(ran.stderr.is_empty(), "{ran:?}");
    match ran.status.code() {
        Some(0) => Some(None),
        Some(1) => Some(Some(said)),
        other => panic!("ci/sass.py ended with {other:?}: {said}"),
    }
}

#[test]
fn a_softmax_under_the_products_passes() {
    let Some(said) = fault(&kernel("attention_wgmma_128", &forward(66, 66))) else { return };
    assert_eq!(said, None);
    // Two passes, as where the masked one stands by itself; and a kernel that multiplies in another way.
    let two = [forward(34, 34), forward(34, 34)].concat();
    let others = kernel("norm", &repeated("MUFU.RSQ R1, R2", 3));
    assert_eq!(fault(&(others + &kernel("attention_wgmma_64", &two))).unwrap(), None);
}

#[test]
fn a_wait_before_the_exponentials_fails() {
    // As the assembler had it before the exponentials were tied to their place; and one of 34 that slipped behind.
    for (name, before, all) in [("attention_wgmma_128", 0, 66), ("attention_wgmma_64", 33, 34)] {
        let Some(said) = fault(&kernel(name, &forward(before, all))) else { return };
        let said = said.unwrap_or_else(|| panic!("{name} with {before} of {all} passes"));
        for part in [name, &format!("computes {before} exponentials"), &format!("expected {all}")] {
            assert!(said.contains(part), "`{said}` does not say `{part}`");
        }
    }
    // In the second pass alone.
    let said = fault(&kernel("attention_wgmma_64", &[forward(34, 34), forward(0, 34)].concat())).unwrap().unwrap();
    assert!(said.contains("after wait 2 of 2"), "{said}");
}

#[test]
fn a_kernel_without_a_pass_or_without_an_entry_fails() {
    for (name, code, part) in [
        ("attention_wgmma_64", repeated(ALL, 3), "has 0 waits"),
        ("attention_wgmma_dkv_64", [repeated(PRODUCTS, 1), repeated(ALL_BUT_ONE, 1)].concat(), "has 1 waits"),
        ("attention_wgmma_new", repeated(PRODUCTS, 1), "does not know its order"),
    ] {
        let Some(said) = fault(&kernel(name, &code)) else { return };
        assert!(said.as_ref().is_some_and(|s| s.contains(part)), "{name}: {said:?}");
    }
    assert!(fault("nothing at all").unwrap().unwrap().contains("lists no kernel"));
}

#[test]
fn a_log_that_says_serialized_is_noticed() {
    let log = "ptxas info : Used 168 registers\\nptxas info : (C7510) Potential Performance Loss: wgmma.mma_async instructions \
               are serialized due to insufficient register resources\\n";
    let Some(ran) =
        python(&["-c", &format!("import sass; print(len(sass.serialized('{log}')), sass.serialized('fine'))")])
    else {
        return;
    };
    assert_eq!(String::from_utf8_lossy(&ran.stdout).trim(), "1 []", "{ran:?}");
}
