//! Comparison of trials and of runs: pairs, ratios with intervals, the Pareto front. Pure.
