//! What a server tells of itself at `/metrics`, in Prometheus's text form: vLLM, SGLang, llama-server, TGI.

use super::client::Client;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Between two looks, and how long one may take.
const EVERY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(2));

/// Names of gauges that say how many requests run.
const RUNNING: [&str; 4] =
    ["vllm:num_requests_running", "sglang:num_running_reqs", "llamacpp:requests_processing", "tgi_batch_current_size"];
/// ... how many wait.
const WAITING: [&str; 4] =
    ["vllm:num_requests_waiting", "sglang:num_queue_reqs", "llamacpp:requests_deferred", "tgi_queue_size"];
/// ... which share of the room for keys and values is taken.
const KV_USE: [&str; 4] =
    ["vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc", "sglang:token_usage", "llamacpp:kv_cache_usage_ratio"];
/// Counters of tokens that were found in the prefix cache, and of those that were looked for.
const HITS: [(&str, &str); 2] = [
    ("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"),
    ("vllm:gpu_prefix_cache_hits_total", "vllm:gpu_prefix_cache_queries_total"),
];
/// Counters of tokens that were found, and of those that were not: llama-server counts a prompt's tokens in one of the two.
const HITS_AND_MISSES: (&str, &str) = ("llamacpp:prompt_tokens_cached_total", "llamacpp:prompt_tokens_total");
/// Gauges of the share that was found.
const HIT_RATE: [&str; 2] = ["sglang:cache_hit_rate", "vllm:gpu_prefix_cache_hit_rate"];

/// One look.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Look {
    pub running: Option<f64>,
    pub waiting: Option<f64>,
    pub kv_use: Option<f64>,
    pub hits: Option<(f64, f64)>,
    pub hit_rate: Option<f64>,
}

/// What the looks of a window come to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// Means over the window.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<f64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<f64>,
    /// The largest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_use: Option<f64>,
    /// Of the prompts' tokens in the window, the share that was in the prefix cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prefix_hits: Option<f64>,
}

/// Reads a page.
pub(super) fn read(page: &str) -> Look {
    let mut all: HashMap<&str, (f64, u32)> = HashMap::new();
    for line in page.lines().map(str::trim).filter(|l| !l.starts_with('#')) {
        let Some((name, value)) = sample(line) else { continue };
        let entry = all.entry(name).or_default();
        *entry = (entry.0 + value, entry.1 + 1);
    }
    // Of several engines behind one server counts add up, and shares do not.
    let sum = |names: &[&str]| names.iter().find_map(|n| all.get(n)).map(|(sum, _)| *sum);
    let mean = |names: &[&str]| names.iter().find_map(|n| all.get(n)).map(|(sum, n)| sum / f64::from(*n));
    let halves = || {
        let (hits, misses) = (sum(&[HITS_AND_MISSES.0])?, sum(&[HITS_AND_MISSES.1])?);
        Some((hits, hits + misses))
    };
    Look {
        running: sum(&RUNNING),
        waiting: sum(&WAITING),
        kv_use: mean(&KV_USE),
        hits: HITS.iter().find_map(|(hits, of)| Some((sum(&[*hits])?, sum(&[*of])?))).or_else(halves),
        hit_rate: mean(&HIT_RATE),
    }
}

/// Name and value of a line: `name{labels} value timestamp`.
fn sample(line: &str) -> Option<(&str, f64)> {
    let (name, rest) = match line.split_once('{') {
        // A label's value may hold anything, a brace as well.
        Some((name, rest)) => (name, rest.rsplit_once('}')?.1),
        None => line.split_once(char::is_whitespace)?,
    };
    let value: f64 = rest.split_whitespace().next()?.parse().ok()?;
    value.is_finite().then_some((name.trim(), value))
}

/// What the looks in a window come to; `None` where there are none.
pub(crate) fn told(looks: &[(f64, Look)], window: (f64, f64)) -> Option<Told> {
    let within: Vec<&Look> =
        looks.iter().filter(|(at, _)| *at >= window.0 && *at <= window.1).map(|(_, l)| l).collect();
    let (first, last) = (within.first()?, within.last()?);
    let each = |of: fn(&Look) -> Option<f64>| within.iter().map(|l| of(l)).collect::<Option<Vec<f64>>>();
    let mean = |of: fn(&Look) -> Option<f64>| each(of).map(|all| all.iter().sum::<f64>() / all.len() as f64);
    let counted = first.hits.zip(last.hits).filter(|(a, b)| b.1 > a.1).map(|(a, b)| (b.0 - a.0) / (b.1 - a.1));
    Some(Told {
        running: mean(|l| l.running),
        waiting: mean(|l| l.waiting),
        kv_use: each(|l| l.kv_use).and_then(|all| all.into_iter().reduce(f64::max)),
        prefix_hits: counted.or_else(|| mean(|l| l.hit_rate)),
    })
}

/// Looks, as they come in.
#[derive(Clone, Debug, Default)]
pub(crate) struct Looks(Arc<Mutex<Vec<(f64, Look)>>>);

impl Looks {
    /// Looks at the server now and then while they are kept. One that has no such page is not asked again; one that has it and
    /// is too busy to show it, as a server whose threads all hold streams, is.
    pub(crate) fn start(client: Arc<Client>, origin: Instant) -> Self {
        let looks = Self::default();
        let all = looks.clone();
        tokio::spawn(async move {
            // While somebody wants to know.
            while Arc::strong_count(&all.0) > 1 {
                if let Ok((status, page)) = client.page("/metrics", EVERY.1).await {
                    let look = read(&String::from_utf8_lossy(&page));
                    if status == 200 && look != Look::default() {
                        let at = origin.elapsed().as_secs_f64();
                        all.0.lock().unwrap_or_else(PoisonError::into_inner).push((at, look));
                    } else if !matches!(status, 429 | 503) {
                        return;
                    }
                }
                tokio::time::sleep(EVERY.0).await;
            }
        });
        looks
    }

    /// What they come to in a window of the same clock.
    pub(crate) fn told(&self, window: (f64, f64)) -> Option<Told> {
        told(&self.0.lock().unwrap_or_else(PoisonError::into_inner), window)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_the_servers_are_read() {
        let vllm = "# HELP vllm:num_requests_running Number of requests.\n# TYPE vllm:num_requests_running gauge\n\
                    vllm:num_requests_running{engine=\"0\",model_name=\"a} b\"} 3.0\n\
                    vllm:num_requests_running{engine=\"1\",model_name=\"a\"} 2.0\n\
                    vllm:num_requests_waiting{engine=\"0\"} 1.0 1700000000000\n\
                    vllm:kv_cache_usage_perc{engine=\"0\"} 0.25\nvllm:kv_cache_usage_perc{engine=\"1\"} 0.75\n\
                    vllm:prefix_cache_queries_total{engine=\"0\"} 1000.0\nvllm:prefix_cache_hits_total{engine=\"0\"} 250.0\n";
        let look = read(vllm);
        assert_eq!((look.running, look.waiting, look.kv_use), (Some(5.0), Some(1.0), Some(0.5)));
        assert_eq!(look.hits, Some((250.0, 1000.0)));
        let llama =
            read("llamacpp:requests_processing 2\nllamacpp:requests_deferred 4\nllamacpp:kv_cache_usage_ratio nan\n");
        assert_eq!((llama.running, llama.waiting, llama.kv_use), (Some(2.0), Some(4.0), None));
        let page = "llamacpp:prompt_tokens_total 300\nllamacpp:prompt_tokens_cached_total 100\nllamacpp:requests_processing 1\n";
        assert_eq!(read(page).hits, Some((100.0, 400.0)), "found, and all that were looked for");
        let sglang = read("sglang:cache_hit_rate{model_name=\"m\"} 0.5\nsglang:token_usage{model_name=\"m\"} 0.1\n");
        assert_eq!((sglang.hit_rate, sglang.kv_use), (Some(0.5), Some(0.1)));
        assert_eq!(read("<html>{}\n\n{ 5\nx y\n"), Look::default());
    }

    #[test]
    fn counters_count_from_the_first_look_of_the_window_to_the_last() {
        let look = |running: f64, hits: f64, of: f64| Look {
            running: Some(running),
            hits: Some((hits, of)),
            ..Look::default()
        };
        let looks = [(0.0, look(9.0, 0.0, 100.0)), (1.0, look(1.0, 10.0, 200.0)), (2.0, look(3.0, 90.0, 300.0))];
        let found = told(&looks, (0.5, 2.5)).unwrap();
        assert_eq!((found.running, found.prefix_hits, found.waiting), (Some(2.0), Some(0.8), None));
        assert_eq!(told(&looks, (3.0, 4.0)), None);
    }
}
