"""The laboratory: runs and searches, above the core and below everything else.

    run         the configuration of a run, its key, executing it
    store       finished runs on disk; files that one process at a time writes
    spaces      what is searched: every loss as it is tuned
    results     runs.csv, skew.csv, per_user: written, read, which runs are selected
    recommend   the best items of each user, and embeddings
    trials      the table of a search's trials, the next one, when one is stopped
    workers     jobs on local processes or a Dask cluster
    sweep       every configuration of a file
    starts      what a search begins with
    tune        the search of a loss's hyper-parameters
    campaign    the project's long runs, cell by cell
    beforehand  what a data set says of popularity before training
    choose      which model for one's own data, within minutes
    doctor      what this installation is and finds

Each module uses those above it alone.
"""
