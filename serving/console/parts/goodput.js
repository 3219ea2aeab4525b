// Goodput, out of what replicas and gateway have counted of live requests.

/**
 * Answers within a time for each second in which a replica had requests.
 * @param {Figures | undefined} figures Of the last two minutes.
 * @param {number | null} withinMs null counts every answer.
 * @returns {number | null} null where nothing was asked.
 */
export function goodputOf(figures, withinMs) {
  if (!figures || figures.answers_per_busy_s === null) return null;
  if (withinMs === null) return figures.answers_per_busy_s;
  return figures.within.length ? figures.answers_per_busy_s * shareWithin(figures.within, withinMs) : null;
}

/**
 * Straight between two bounds, as percentiles are read.
 * @param {[ms: number, share: number][]} within Bounds, growing, with the share of answers within each.
 * @param {number} ms
 */
export function shareWithin(within, ms) {
  let [low, below] = [0, 0];
  for (const [bound, share] of within) {
    if (ms <= bound) return below + ((share - below) * (ms - low)) / (bound - low || 1);
    [low, below] = [bound, share];
  }
  // Nothing is known of what lies beyond the last bound.
  return below;
}
