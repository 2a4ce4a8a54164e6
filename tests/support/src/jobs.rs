//! What the command line says of jobs, in a form that tests compare.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use crate::place::Place;

/// An object in JSON, whose values stay as they are written.
type Object = BTreeMap<String, Box<RawValue>>;

impl Place {
    /// What `asyncq job show --json` says of a job.
    pub fn job(&self, id: usize) -> Value {
        serde_json::from_str(&self.stdout(&format!("exec asyncq job show {id} --json"))).unwrap()
    }

    /// These fields of all jobs, the oldest job first, as in `completed 1, error 2`: what `asyncq job list --json` says.
    ///
    /// A dot leads into a field, as in `error.kind`. A field that is null is left out. Arguments and results are the JSON
    /// that was stored.
    pub fn jobs(&self, fields: &str) -> String {
        let mut jobs: Vec<Object> = serde_json::from_str(&self.stdout("exec asyncq job list --json")).unwrap();
        jobs.reverse();
        list(&jobs, fields)
    }

    /// These fields of the attempts of a job, the first attempt first, as [`Place::jobs`] gives those of jobs.
    pub fn attempts(&self, id: usize, fields: &str) -> String {
        let mut job: Object = serde_json::from_str(&self.stdout(&format!("exec asyncq job show {id} --json"))).unwrap();
        list(&serde_json::from_str::<Vec<Object>>(job.remove("attempts").unwrap().get()).unwrap(), fields)
    }

    /// How many jobs `asyncq job list` lists with these options.
    pub fn count(&self, options: &str) -> usize {
        let jobs: Vec<Object> =
            serde_json::from_str(&self.stdout(&format!("exec asyncq job list --json {options}"))).unwrap();
        jobs.len()
    }
}

fn list(objects: &[Object], fields: &str) -> String {
    let words = |object| fields.split(' ').filter_map(|path| field(object, path)).collect::<Vec<_>>().join(" ");
    objects.iter().map(words).collect::<Vec<_>>().join(", ")
}

fn field(object: &Object, path: &str) -> Option<String> {
    if let Some((outer, inner)) = path.split_once('.') {
        let object: Option<Object> = serde_json::from_str(object[outer].get()).unwrap();
        return field(&object?, inner);
    }
    let json = object[path].get();
    match serde_json::from_str(json).unwrap() {
        Value::Null => None,
        Value::String(text) if !["args", "kwargs", "result"].contains(&path) => Some(text),
        _ => Some(json.to_owned()),
    }
}
