"""A search space as a Python function, for what YAML cannot say: here alpha depends on the rank.

python examples/function_space.py
"""

import optuna

import lorasweep


def space(trial: optuna.Trial) -> dict[str, object]:
    """Alpha is once, twice or four times the rank; attention alone gets a higher learning rate."""
    rank = trial.suggest_categorical("rank", [4, 8, 16, 32])
    ratio = trial.suggest_categorical("_ratio", [1, 2, 4])  # a leading _ marks a helper, not a hyperparameter
    targets = trial.suggest_categorical("target_modules", ["attention", "all-linear"])
    if targets == "attention":
        trial.suggest_float("learning_rate", 1e-3, 6e-3, log=True)
    else:
        trial.suggest_float("learning_rate", 5e-4, 4e-3, log=True)
    # What the function works out itself, and constants.
    return {"alpha": rank * ratio, "batch_size": 16}


# lorasweep may read this file again to find the function.
if __name__ == "__main__":
    sweep = lorasweep.run(space=space, trials=4, epochs=1, max_train_rows=300)

    print(sweep.trials)
    print(sweep.winner.id, sweep.winner.hyperparameters)

    # The sweep is an Optuna study, so Optuna's own tools read it.
    study = optuna.load_study(study_name=sweep.name, storage=f"sqlite:///{sweep.path}/study.db")
    print(study.trials_dataframe(attrs=("number", "value", "params", "state")))
