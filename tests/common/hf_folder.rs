//! Folders as Hugging Face's library saves a model, made of the golden files.

use safetensors::{Dtype, SafeTensors, tensor::TensorView};
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// A model's config and its parameters by Hugging Face's names: dimensions, numbers.
#[derive(Clone)]
pub(crate) struct Saved {
    pub(crate) config: String,
    pub(crate) tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

/// A file's tensors: dimensions, bytes.
type File = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// The path of a golden file.
pub(crate) fn golden(name: &str) -> PathBuf {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let of_family = golden.join(format!("families/{name}.safetensors"));
    if of_family.exists() { of_family } else { golden.join(format!("{name}.safetensors")) }
}

impl Saved {
    /// The model of a golden file.
    pub(crate) fn of(name: &str) -> Self {
        let bytes = std::fs::read(golden(name)).unwrap();
        let n = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
        let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + n]).unwrap();
        let config = header["__metadata__"]["config"].as_str().unwrap().to_string();
        let numbers = |data: &[u8]| data.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect();
        let tensors = SafeTensors::deserialize(&bytes).unwrap();
        let parameter = |(name, view): (&str, TensorView)| {
            Some((name.strip_prefix("param/")?.to_string(), (view.shape().to_vec(), numbers(view.data()))))
        };
        Self { config, tensors: tensors.iter().filter_map(parameter).collect() }
    }

    /// The numbers as another format has them.
    pub(crate) fn rounded(mut self, dtype: Dtype) -> Self {
        for (_, numbers) in self.tensors.values_mut() {
            numbers.iter_mut().for_each(|x| {
                *x = match dtype {
                    Dtype::BF16 => half::bf16::from_f32(*x).to_f32(),
                    Dtype::F16 => half::f16::from_f32(*x).to_f32(),
                    _ => *x,
                }
            });
        }
        self
    }

    /// Tensors by other names.
    pub(crate) fn renamed(mut self, name: impl Fn(&str) -> String) -> Self {
        self.tensors = self.tensors.into_iter().map(|(old, tensor)| (name(&old), tensor)).collect();
        self
    }

    /// Writes the folder, in one file or in several with an index.
    pub(crate) fn write(&self, folder: &Path, dtype: Dtype, shards: usize) {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("config.json"), &self.config).unwrap();
        let mut files: Vec<File> = vec![File::new(); shards];
        for (i, (name, (shape, numbers))) in self.tensors.iter().enumerate() {
            files[i % shards].insert(name.clone(), (shape.clone(), bytes(numbers, dtype)));
        }
        if let [one] = files.as_slice() {
            return write(&folder.join("model.safetensors"), one, dtype);
        }
        let mut map = HashMap::new();
        for (i, tensors) in files.iter().enumerate() {
            let file = format!("model-{:05}-of-{shards:05}.safetensors", i + 1);
            write(&folder.join(&file), tensors, dtype);
            tensors.keys().for_each(|name| drop(map.insert(name.clone(), file.clone())));
        }
        let index = serde_json::json!({"metadata": {}, "weight_map": map});
        std::fs::write(folder.join("model.safetensors.index.json"), index.to_string()).unwrap();
    }
}

fn bytes(numbers: &[f32], dtype: Dtype) -> Vec<u8> {
    let each = |x: &f32| match dtype {
        Dtype::BF16 => half::bf16::from_f32(*x).to_le_bytes().to_vec(),
        Dtype::F16 => half::f16::from_f32(*x).to_le_bytes().to_vec(),
        _ => x.to_le_bytes().to_vec(),
    };
    numbers.iter().flat_map(each).collect()
}

fn write(path: &Path, tensors: &File, dtype: Dtype) {
    let views =
        tensors.iter().map(|(name, (shape, data))| (name, TensorView::new(dtype, shape.clone(), data).unwrap()));
    std::fs::write(path, safetensors::serialize(views.collect::<Vec<_>>(), None).unwrap()).unwrap();
}
