"""`python -m raptor_s3.gateway`: the same as `raptor gateway`."""

from raptor_s3.gateway.command import main

raise SystemExit(main())
