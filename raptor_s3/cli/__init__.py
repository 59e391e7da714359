"""The `raptor` command: one file per verb, and the same verbs for `aws raptor` (docs/cli.md).

    main          argv -> verb -> exit code
    options       a verb's options, described once for argparse and for the AWS CLI
    profile       its settings, and what is missing when it has no endpoint
    explain       what an error means, and what to do about it
    output        lines, JSON lines, or pictures: whatever the other end of stdout can use
    send          raptor FILE_OR_FOLDER wg://... | s3://...     (destination: how files are named there,
                  aftermath: what follows when one has ended)
    configure     asks, tests by a real handshake, writes the profile  (config_file: the editor of ~/.aws/config,
                  aws_cli: the AWS CLI's plugin line)
    keygen        a key file that only its owner reads
    status, ping  how the endpoint does, and why the last puts went where they went

Invariant: importing this package, and `raptor --help`, import neither botocore nor numpy nor rich.
"""
