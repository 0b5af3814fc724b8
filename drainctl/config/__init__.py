"""
drainctl.yml: read, checked, and turned into a `model.Cluster`.

| module       | what it does |
|--------------|--------------|
| read         | YAML to a plain tree, and where each key and value stands |
| expand       | `${VAR}` from the environment, and texts that do not show it |
| kinds        | the kinds of values: durations, amounts, URLs, … |
| shapes       | what a table of keys is made of |
| schema       | the table: the keys, with their kinds, defaults and descriptions |
| walk         | the tree along the table: values, and keys that are wrong for themselves |
| check        | what no key can tell alone: references, duplicates, placeholders |
| build        | the checked keys to a Cluster |
| load         | all of it, every problem at once |
| placeholders | `{host}` and its like in commands, paths and URLs |
| json_schema  | JSON Schema for editors |
| reference    | docs/configuration.md |
| explain      | one key, in a terminal |
"""
