"""
drainctl.yml: read, checked, and turned into a `model.Cluster`.

| module       | what it does |
|--------------|--------------|
| read         | YAML to a plain tree, and where each key and value stands |
| expand       | `${VAR}` from the environment, and texts that do not show it |
| kinds        | the kinds of values: durations, amounts, URLs, … |
| schema       | the keys, with their kinds, defaults and descriptions |
| walk         | which sections and keys the schema has |
| check        | what no key can tell alone: references, duplicates, placeholders |
| build        | the checked keys to a Cluster |
| load         | all of it, every problem at once |
| placeholders | `{host}` and its like in commands, paths and URLs |
| json_schema  | JSON Schema for editors |
| reference    | docs/configuration.md |
"""
