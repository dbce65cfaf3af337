//! A plan: one run as plain data, drawn from a scenario and a seed.
//!
//! Every step has its own draws, made from the seed and its number; so has every option. Leaving one out changes no other.
//! Invariant: the same scenario, seed and wishes give the same plan on every machine. Callers: `simulate`, `shrink`.

use super::scenario::{Phase, Scenario, duration_ms, signed_ms};
use super::step::{Act, KINDS, Step};
use crate::world::Setting;
use crate::world::dice::Dice;
use crate::world::network::Weather;

/// Classes of faults that can be switched off: by the seed, by the shrinker, by `--without`.
pub const CLASSES: [&str; 13] = [
    "loss", "repeat", "delay", "cuts", "one-way", "groups", "kills", "crashes", "clocks", "joiners", "clones",
    "restores", "steering",
];

/// One run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Name of its scenario.
    pub scenario: String,
    /// Its seed.
    pub seed: u64,
    /// Steps of phases that count by steps.
    pub step_count: u64,
    /// Servers at the beginning.
    pub servers: usize,
    /// The network.
    pub weather: Weather,
    /// Identities that ids are steered by.
    pub steering_runs: u32,
    /// Clock errors at the start, by server.
    pub clocks_ms: Vec<i64>,
    /// Idle nodes look this seldom, ms; 0: as they ask for.
    pub idle_tick_ms: u64,
    /// Classes that are off: drawn, or because somebody wished it.
    pub off: Vec<String>,
    /// Those of them that somebody wished.
    pub without: Vec<String>,
    /// Steps in the order of time.
    pub steps: Vec<Step>,
    /// How many steps there were before any was left out.
    pub drawn: usize,
    /// When the hostile phase ends, ms.
    pub ends_ms: u64,
    /// Virtual time in which the cluster must settle, ms.
    pub settles_ms: u64,
    /// Looks come after every so many steps.
    pub look_every: usize,
    /// Frames with events per event and server, at most.
    pub frames_per_event_max: Option<f64>,
}

fn dice_for(seed: u64, what: &str, number: u64) -> Dice {
    let hash = blake3::hash(format!("{what} {number}").as_bytes());
    let first = u64::from_be_bytes(hash.as_bytes()[..8].try_into().unwrap_or_default());
    Dice::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d) ^ first)
}

impl Plan {
    /// Draws a run. `steps`: instead of the scenario's own number.
    pub fn draw(scenario: &Scenario, seed: u64, steps: Option<u64>) -> Plan {
        let dice = |what: &str| dice_for(seed, what, 0);
        let [from, to] = scenario.servers;
        let most = if to > 4 && dice("small").chance(60) { 4.max(from) } else { to };
        let servers = from + dice("servers").below((most - from) as u64 + 1) as usize;
        let worst = |what: &str, most: u64| if most == 0 { 0 } else { dice(what).below(most + 1) };
        let weather = Weather {
            loss: worst("loss", scenario.network.loss),
            repeat: worst("repeat", scenario.network.repeat),
            delay_ms: worst("delay", scenario.network.delay_ms),
        };
        let idle_ms = duration_ms(&scenario.idle_tick).unwrap_or(0);
        let idle_tick_ms = if idle_ms == 0 { [0, 2_000, 5_000][dice("idle").below(3) as usize] } else { idle_ms };
        let mut plan = Plan {
            scenario: scenario.name.clone(),
            seed,
            step_count: 0,
            servers,
            weather,
            steering_runs: [0, 2, 16][dice("steering").below(3) as usize],
            clocks_ms: draw_clocks(scenario, seed, servers),
            idle_tick_ms,
            off: Vec::new(),
            without: Vec::new(),
            steps: Vec::new(),
            drawn: 0,
            ends_ms: 0,
            settles_ms: duration_ms(&scenario.settles_within).unwrap_or(120_000),
            look_every: scenario.look_every.max(1),
            frames_per_event_max: scenario.frames_per_event_max,
        };
        plan.draw_steps(scenario, steps);
        plan.drawn = plan.steps.len();
        for class in CLASSES {
            if dice_for(seed, class, 1).chance(scenario.off_percent) {
                plan.switch_off(class);
            }
        }
        plan
    }

    fn draw_steps(&mut self, scenario: &Scenario, asked: Option<u64>) {
        let clocks_ms = duration_ms(&scenario.clocks.error).unwrap_or(0);
        let mut begins = 0;
        for phase in &scenario.phases {
            let first = self.steps.len();
            let length = phase.lasts.as_deref().and_then(|lasts| duration_ms(lasts).ok());
            let count = if length.is_some() { u64::MAX } else { asked.or(phase.steps).unwrap_or(0) };
            self.step_count = if length.is_some() { self.step_count } else { count };
            let mut at_ms = begins;
            for at in &phase.at {
                self.timed(at, begins, clocks_ms);
            }
            if !phase.weights.is_empty() {
                let mut done = 0;
                while done < count {
                    let mut dice = dice_for(self.seed, &phase.name, self.steps.len() as u64);
                    let Some(act) = draw_act(phase, &mut dice, self.servers, clocks_ms, scenario.clocks.only) else {
                        break;
                    };
                    at_ms += draw_pause(phase, &mut dice);
                    if length.is_some_and(|length| at_ms >= begins + length) {
                        break;
                    }
                    self.steps.push(Step { number: self.steps.len() + 1, at_ms, draws: dice.bits(), act });
                    done += 1;
                }
            }
            begins = length.map_or(at_ms, |length| begins + length);
            self.steps[first..].sort_by_key(|step| (step.at_ms, step.number));
        }
        self.ends_ms = begins;
    }

    fn timed(&mut self, at: &super::scenario::At, begins: u64, clocks_ms: u64) {
        let number = self.steps.len() + 1;
        let mut dice = dice_for(self.seed, "timetable", number as u64);
        let drawn = dice.below(self.servers as u64) as usize;
        let server = at.server.unwrap_or(drawn);
        let beside = (server + 1 + dice.below(self.servers as u64 - 1) as usize) % self.servers;
        let far = dice.below(clocks_ms.saturating_mul(2) + 1) as i64 - clocks_ms as i64;
        let error = at.error.as_deref().and_then(|text| signed_ms(text).ok()).unwrap_or(far);
        let act = Act::parse(&at.act, server, at.other.unwrap_or(beside), error, at.groups.unwrap_or(2));
        let at_ms = begins + duration_ms(&at.time).unwrap_or(0);
        if let Some(act) = act {
            self.steps.push(Step { number, at_ms, draws: dice.bits(), act });
        }
    }

    /// Switches a class off. True when that changes something.
    pub fn switch_off(&mut self, class: &str) -> bool {
        if self.off.iter().any(|off| off == class) {
            return false;
        }
        let before = (self.weather.clone(), self.steering_runs, self.clocks_ms.clone(), self.steps.len());
        match class {
            "loss" => self.weather.loss = 0,
            "repeat" => self.weather.repeat = 0,
            "delay" => self.weather.delay_ms = 0,
            "steering" => self.steering_runs = 0,
            "clocks" => self.clocks_ms.fill(0),
            _ => {}
        }
        self.steps.retain(|step| step.act.class() != class);
        self.off.push(class.to_string());
        before != (self.weather.clone(), self.steering_runs, self.clocks_ms.clone(), self.steps.len())
    }

    /// The same because somebody wished it.
    pub fn wish_off(&mut self, class: &str) -> bool {
        self.without.push(class.to_string());
        self.switch_off(class)
    }

    /// Leaves out the servers from here on, and every step about them.
    pub fn with_servers(&mut self, servers: usize) {
        self.servers = servers;
        self.clocks_ms.truncate(servers);
        self.steps.retain(|step| step.act.servers().iter().all(|server| *server < servers));
    }

    /// What a world is made of for it.
    pub fn setting(&self) -> Setting {
        Setting {
            seed: self.seed,
            servers: self.servers,
            weather: self.weather.clone(),
            steering_runs: self.steering_runs,
            clocks_ms: self.clocks_ms.clone(),
            idle_tick_ms: self.idle_tick_ms,
        }
    }

    /// The command that plays it again.
    pub fn again(&self) -> String {
        let mut command = format!("simulate --scenario {} --seed {}", self.scenario, self.seed);
        if self.step_count > 0 {
            command += &format!(" --steps {}", self.step_count);
        }
        command += &format!(" --servers {}", self.servers);
        if !self.without.is_empty() {
            command += &format!(" --without {}", self.without.join(","));
        }
        // What a class or a server took away needs no naming, but then everything that is left is named.
        if self.steps.len() < self.drawn {
            let numbers: Vec<usize> = self.steps.iter().map(|step| step.number).collect();
            command += &format!(" --keep {}", ranges(&numbers));
        }
        command
    }
}

fn draw_clocks(scenario: &Scenario, seed: u64, servers: usize) -> Vec<i64> {
    let most = duration_ms(&scenario.clocks.error).unwrap_or(0);
    let of = |server: usize| {
        let mut dice = dice_for(seed, "clock", server as u64);
        let wrong = scenario.clocks.only.map_or(server > 0 && dice.chance(70), |only| only == server);
        if wrong { dice.below(most.saturating_mul(2) + 1) as i64 - most as i64 } else { 0 }
    };
    (0..servers).map(of).collect()
}

fn draw_act(phase: &Phase, dice: &mut Dice, servers: usize, clocks_ms: u64, only: Option<usize>) -> Option<Act> {
    let all: u64 = phase.weights.values().sum();
    let mut drawn = dice.below(all);
    let mut by_name = phase.weights.iter();
    let kind = loop {
        let (kind, weight) = by_name.next()?;
        if drawn < *weight {
            break kind;
        }
        drawn -= weight;
    };
    let act = Act::draw(kind, dice, servers, clocks_ms)?;
    Some(match (act, only) {
        (Act::Clock { error_ms, .. }, Some(server)) => Act::Clock { server, error_ms },
        (act, _) => act,
    })
}

fn draw_pause(phase: &Phase, dice: &mut Dice) -> u64 {
    let mut drawn = dice.below(100);
    for (percent, most) in &phase.pauses {
        if drawn < *percent {
            return dice.below(duration_ms(most).unwrap_or(0).max(1));
        }
        drawn -= percent;
    }
    0
}

/// `1-3,7`: numbers as the command line takes them.
pub fn ranges(numbers: &[usize]) -> String {
    let mut sorted = numbers.to_vec();
    sorted.sort_unstable();
    let mut text: Vec<String> = Vec::new();
    let mut position = 0;
    while position < sorted.len() {
        let first = sorted[position];
        while position + 1 < sorted.len() && sorted[position + 1] == sorted[position] + 1 {
            position += 1;
        }
        let last = sorted[position];
        text.push(if first == last { first.to_string() } else { format!("{first}-{last}") });
        position += 1;
    }
    if text.is_empty() { "none".to_string() } else { text.join(",") }
}

/// The inverse of [`ranges`].
pub fn numbers(text: &str) -> Option<Vec<usize>> {
    if text == "none" {
        return Some(Vec::new());
    }
    let mut numbers = Vec::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        numbers.extend(first.parse::<usize>().ok()?..=last.parse().ok()?);
    }
    Some(numbers)
}

/// Whether a name is one of a class of faults.
pub fn is_class(name: &str) -> bool {
    CLASSES.contains(&name) || KINDS.iter().any(|(_, class)| *class == name) || name == "replacements"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_left_out_changes_no_other() {
        let scenario = Scenario::load("swarm").unwrap();
        let whole = Plan::draw(&scenario, 7, Some(80));
        let mut part = Plan::draw(&scenario, 7, Some(80));
        part.wish_off("kills");
        assert!(part.steps.iter().all(|step| whole.steps.contains(step)));
    }

    #[test]
    fn numbers_come_back_from_their_ranges() {
        assert_eq!(ranges(&[3, 1, 2, 7]), "1-3,7");
        assert_eq!(numbers("1-3,7"), Some(vec![1, 2, 3, 7]));
        assert_eq!(numbers(&ranges(&[])), Some(vec![]));
    }
}
